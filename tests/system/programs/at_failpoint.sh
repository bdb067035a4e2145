# FAILPOINT ACTION COMMAND...: runs a command whose worker stops at a failpoint, evaluates ACTION ($client and
# $worker are the pids), and lets the worker go on. Prints the command's output and ends with its exit code.
point=$1 action=$2
shift 2
APT_OSTREE_FAILPOINT=$point=stop "$@" >/run/out 2>&1 &
client=$!
for _try in $(seq 1200); do
    worker=$(pgrep -P $client) && grep -q '(stopped)' "/proc/$worker/status" && break
    kill -0 $client || break
    sleep 0.05
done
eval "$action" || true
case $action in
*-INT*) # the client has passed it on when SIGTERM is pending
    for _try in $(seq 1200); do
        grep -Eq 'ShdPnd:.*[4-7c-f]...$' "/proc/$worker/status" && break
        sleep 0.05
    done
    ;;
esac
kill -CONT "$worker" || echo "not stopped at $point"
code=0
wait $client || code=$?
cat /run/out
exit $code
