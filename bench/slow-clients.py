"""Slow clients and those who push beside them; see slow-clients.sh, which starts the daemon and this."""

import argparse
import multiprocessing
import os
import resource
import socket
import struct
import sys
import threading
import time
import zlib

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
CONNECTIONS = 8
HELD_BYTES = 15_000_000
BUDGET_BYTES = 32 << 20
FREE_BYTES = 16 << 10
FACTOR_MAX = 5
AUTHORIZATION = f"Authorization: Bearer {os.environ['TOKEN']}\r\n"


def request(method, path, fields, body, cut=0):
    """A request whose body lacks its last `cut` bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode()
    return head + body[: len(body) - cut]


def zstd_bomb(paid, blocks):
    """A skippable frame, and blocks of 128 KiB of one byte each."""
    frame = struct.pack("<II", 0x184D2A50, paid) + bytes(paid) + bytes((0x28, 0xB5, 0x2F, 0xFD, 0, 7 << 3))
    return frame + (struct.pack("<I", (128 << 10) << 3 | 2)[:3] + b"x") * blocks


def gzip_bomb(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(b"x" * size) + packer.flush()


class Slow:
    """A client that sends `first` at once, then `drip` each second, and reads nothing. Whoever is cut comes again."""

    def __init__(self, port, first, drip=b""):
        self.port, self.first, self.drip = port, first, drip
        self.cuts = -1
        self.begin()

    def begin(self):
        self.cuts += 1
        self.left = self.first
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", self.port))
        self.socket.setblocking(False)

    def go_on(self):
        try:
            if self.left:
                self.left = self.left[self.socket.send(self.left[: 1 << 20]) :]
            elif self.drip:
                self.socket.send(self.drip)
        except BlockingIOError:
            pass
        except OSError:
            self.socket.close()
            self.begin()

    def is_refused(self):
        """Whether it was answered, or cut: those who hold bodies look."""
        try:
            return self.socket.recv(1, socket.MSG_PEEK) is not None
        except BlockingIOError:
            return False
        except OSError:
            return True


class SlowClients(multiprocessing.Process):
    """All of them, in a process of their own: they do not slow those down who push."""

    CONNECTIONS = 4 + 24 + 200

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.is_over, self.cuts = port, multiprocessing.Event(), multiprocessing.Queue()
        self.start()

    def begin(self, port):
        plain = b"x" * 60_000
        held = request("POST", "/push/held", AUTHORIZATION, b'"' + b"a" * (HELD_BYTES - 2) + b'"', HELD_BYTES - 9_500_000)
        lines = request("POST", "/push/deaf", AUTHORIZATION + "Content-Type: application/x-ndjson\r\n", b"1\n" * 10_000)
        without_a_token = [
            b"GET /health HTTP/1.1\r\nHost: h\r\nX: " + plain[:15_000],
            request("GET", "/health", "", plain, 1),
            request("OPTIONS", "/push/q", "Content-Encoding: gzip\r\n", gzip_bomb(16 << 20), 1),
            request("GET", "/health", "Content-Encoding: zstd\r\n", zstd_bomb(4000, 13), 1),
            b"GET /health HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n" + plain[:-1],
            request("POST", "/push/q", "", plain * 10, 1),
            request("POST", "/push/q", "Content-Type: application/x-ndjson\r\nContent-Encoding: zstd\r\n", zstd_bomb(4000, 13), 1),
            b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 4000,
        ]
        self.holders = [Slow(port, held, b"a" * 2048) for _ in range(4)]
        self.others = [Slow(port, lines * 6) for _ in range(24)]
        self.others += [Slow(port, without_a_token[n % len(without_a_token)]) for n in range(200)]

    def run(self):
        self.begin(self.port)
        while not self.is_over.is_set():
            began = time.monotonic()
            for slow in self.holders:
                if slow.is_refused():
                    slow.socket.close()
                    slow.begin()
            while time.monotonic() < began + 1 and not self.is_over.is_set():
                for slow in self.holders + self.others:
                    if slow.left:
                        slow.go_on()
                time.sleep(0.02)
            for slow in self.holders + self.others:
                slow.go_on()

        self.cuts.put((sum(slow.cuts for slow in self.holders), sum(slow.cuts for slow in self.others)))

    def end(self):
        self.is_over.set()
        cuts = self.cuts.get(timeout=30)
        self.join()
        return cuts


class Pusher(threading.Thread):
    """One connection that pushes bodies of all sizes in turn until `deadline`."""

    def __init__(self, port, deadline, shift):
        super().__init__(daemon=True)
        self.port, self.deadline, self.shift = port, deadline, shift
        self.latencies, self.refusals = [], []
        self.start()

    def run(self):
        bodies = [request("POST", "/push/others", AUTHORIZATION, b'"' + b"a" * (size - 2) + b'"') for size in SIZES]
        connection, at = None, self.shift
        while time.monotonic() < self.deadline:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", self.port), 60)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.monotonic()
            try:
                connection.sendall(bodies[at % len(bodies)])
                answer = connection.recv(65536)
            except OSError as error:
                answer = str(error).encode()
            self.latencies.append(time.monotonic() - began)
            if answer[9:12] != b"201":
                self.refusals.append(answer[:40] + answer[-100:])
                connection.close()
                connection = None
            at += 1
            # The log must not fill up: nothing drains it.
            time.sleep(0.02)


def memory_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:"))


def push(port, pid, seconds):
    """Latencies, refusals and the most memory."""
    deadline = time.monotonic() + seconds
    pushers = [Pusher(port, deadline, shift) for shift in range(CONNECTIONS)]
    peak = 0
    while any(pusher.is_alive() for pusher in pushers):
        peak = max(peak, memory_bytes(pid))
        time.sleep(0.02)
    latencies = sorted(latency for pusher in pushers for latency in pusher.latencies)
    return latencies, [refusal for pusher in pushers for refusal in pusher.refusals], peak


def main():
    parser = argparse.ArgumentParser()
    for name in ("port", "pid", "cores", "seconds", "rounds"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    push(args.port, args.pid, 5)
    kinds = {"without": ([], [], [0]), "with": ([], [], [0])}
    connections = 0
    for part in range(args.rounds):
        for kind, (latencies, refusals, peaks) in kinds.items():
            slow = SlowClients(args.port) if kind == "with" else None
            some, wrong, peak = push(args.port, args.pid, args.seconds)
            latencies += some
            refusals += wrong
            peaks.append(peak)
            if slow:
                connections = SlowClients.CONNECTIONS
                holders, others = slow.end()
                print(f"part {part}: holders were cut {holders} times, the others {others} times", file=sys.stderr)
                time.sleep(1)
    print("| slow clients | pushes | not 2xx | p50 | p99 | most | memory at most |\n|---|---|---|---|---|---|---|")
    for kind, (latencies, refusals, peaks) in kinds.items():
        latencies.sort()
        times = [latencies[int(len(latencies) * share)] for share in (0.5, 0.99)] + [latencies[-1]]
        shown = " | ".join(f"{value * 1000:.1f} ms" for value in times)
        print(f"| {kind} | {len(latencies)} | {len(refusals)} | {shown} | {max(peaks) / (1 << 20):.0f} MiB |")
        for refusal in refusals[:3]:
            print(refusal, file=sys.stderr)
    p99 = {kind: latencies[int(len(latencies) * 0.99)] for kind, (latencies, _, _) in kinds.items()}
    factor = p99["with"] / p99["without"]
    grown = max(kinds["with"][2]) - max(kinds["without"][2])
    most = args.cores * BUDGET_BYTES + connections * FREE_BYTES
    print(f"\nThe 99th percentile is {factor:.1f} times as long; memory grew by {grown >> 20} of {most >> 20} MiB.")
    sys.exit(any(refusals for _, refusals, _ in kinds.values()) or factor > FACTOR_MAX or grown > most)


if __name__ == "__main__":
    main()
