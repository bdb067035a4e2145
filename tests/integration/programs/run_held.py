"""Opens a directory; for each line of input has nobody run the copy of id(1) in it, and prints its user."""

import os
import subprocess
import sys

directory = os.open(sys.argv[1], os.O_PATH)
command = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    f"/proc/self/fd/{directory}/id",
    "-u",
]
print("opened", flush=True)
for _ in sys.stdin:
    done = subprocess.run(command, pass_fds=[directory], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="", flush=True)
