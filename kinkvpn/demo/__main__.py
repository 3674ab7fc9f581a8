"""PID 1 of the demo's sandbox; ``kinkvpn demo`` starts it and is the command for people."""

import os
import sys

from kinkvpn.demo.command import inside

if __name__ == "__main__":
    if os.getpid() != 1:
        sys.exit("this is the inner part of `kinkvpn demo`: run that instead")
    form, megabytes = sys.argv[1:]
    sys.exit(inside(as_json=form == "json", megabytes=int(megabytes)))
