"""Leases ports and holds them. Usage: lessee.py COUNT [PORT...]. Prints them on one line."""

import sys
import time

from cluster import lease_ports

if __name__ == "__main__":
    lease = lease_ports(int(sys.argv[1]), ports=[int(port) for port in sys.argv[2:]])
    print(*lease.ports, flush=True)
    time.sleep(600)
