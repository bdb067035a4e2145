# SUITE DAYS: publishes the packages of a suite of the fixtures as the suite `own` of an archive in /var/tmp/archive,
# with a Release file that was signed so many days ago.
top=/var/tmp/archive suite=$top/dists/own lists=main/binary-amd64/Packages
[ -e /var/tmp/archive.gpg ] || {
    gpg --batch --quiet --passphrase '' --quick-generate-key archive@example.com ed25519 sign never
    gpg --export archive@example.com >/var/tmp/archive.gpg
}
mkdir -p $suite/main/binary-amd64
ln -sfn /var/lib/testbed/repo/pool $top/pool
cp /var/lib/testbed/repo/dists/$1/$lists $suite/$lists
{
    printf 'Suite: own\nCodename: own\nArchitectures: amd64\nComponents: main\n'
    echo "Date: $(LC_ALL=C date -uR --date="-$2 days")"
    echo "SHA256:"
    echo " $(sha256sum <$suite/$lists | cut -c1-64) $(stat -c %s $suite/$lists) $lists"
} >$suite/Release
gpg --batch --yes --quiet --local-user archive@example.com --clearsign --output $suite/InRelease $suite/Release
