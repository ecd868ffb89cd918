#!/usr/bin/env python3
"""A worker of a Croupier issuer, in Python's standard library alone: docs/wire-format.md, "Taking jobs".

    python3 issuer.py CHANNEL [--server croupier://127.0.0.1:7733] [--jobs 16] [--file CODES] [--delay SECONDS] [--fail-share F]

It offers room for jobs, makes a code for each card that is wanted (or takes the next line of a file), and delivers it. What a worker must
get right is in `Worker`: a delivery without an answer is sent again until there is one, over another connection if need be (a card is
stock once, whatever comes), and a job that takes long has its lease extended. Ctrl-C ends it, after the jobs under way are done.
"""

import argparse
import concurrent.futures
import itertools
import os
import signal
import socket
import struct
import sys
import threading
import time
import uuid

HELLO, TAKE_JOBS, DELIVER_JOB, END_JOB, REFUSED, FAULT = 1, 45, 46, 47, 254, 255
REPLY = 0x80  # a reply has its request's kind with this bit set
MORE = 1  # header flag: another frame of the same reply follows
ALL = 1  # flag of DeliverJob: these are all
EXTEND, FAIL_FOR_NOW, FAIL_FOR_GOOD = 1, 2, 3
JOB_STATES = {1: "done", 2: "under way", 3: "over", 4: "unknown"}
BUSY, DISK_FULL, SHUTTING_DOWN, STORE_FAILED, CHANNEL_UNKNOWN, TOO_MANY_WORKERS = 7, 14, 15, 16, 55, 58
PASSING = {BUSY, DISK_FULL, SHUTTING_DOWN, STORE_FAILED, CHANNEL_UNKNOWN, TOO_MANY_WORKERS}
AMOUNT_NONE = -(1 << 63)
FRAME_BYTES_LIMIT = 16 << 20  # no server sends longer ones
ROWS_MAX = 1024
ANSWER_S = 10.0  # how long an answer may take, besides what the server was asked to wait


# --- frames ---------------------------------------------------------------------------------------------------------------------


def crc_table():
    """CRC-32C, byte by byte: the reflected polynomial of Castagnoli."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def frame(kind, request_id, body, count=0):
    rest = struct.pack("<2sBBHHQ", b"CR", 1, kind, 0, count, request_id) + body
    return struct.pack("<II", 8 + len(rest), crc32c(rest)) + rest


class Broken(Exception):
    """The connection is of no use any more; another one may be."""


class Refused(Exception):
    """The server said no."""

    def __init__(self, number, retry_after_ms, text):
        super().__init__(f"refused as {number}: {text}")
        self.number, self.retry_after_s = number, retry_after_ms / 1000


class Connection:
    """One connection. Any thread may ask; a thread of its own gives the answers to whom they belong."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=3)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(None)
        self.lock = threading.Lock()
        self.ids = itertools.count(1)
        self.open = {}  # request id -> Future of the body
        self.lost = None
        threading.Thread(target=self.read, daemon=True).start()
        hello = self.ask(HELLO, struct.pack("<HHIQ", 1, 1, 0, 0))
        self.frame_bytes_max = struct.unpack_from("<I", hello, 4)[0]

    def ask(self, kind, body, count=0, wait_s=0.0):
        """Sends a request and waits for the body of its reply."""
        answer = concurrent.futures.Future()
        with self.lock:
            if self.lost:
                raise Broken(self.lost)
            request_id = next(self.ids)
            self.open[request_id] = answer
            try:
                self.socket.sendall(frame(kind, request_id, body, count))
            except OSError as error:
                self.lose_locked(error)
        try:
            return answer.result(timeout=ANSWER_S + wait_s)
        except concurrent.futures.TimeoutError:
            self.close("no answer")
            raise Broken("no answer") from None

    def read(self):
        try:
            while True:
                self.read_one()
        except (OSError, Broken) as error:
            self.close(error)

    def read_one(self):
        head = self.exactly(24)
        length, checksum, magic, version, kind, flags, _, request_id = struct.unpack("<II2sBBHHQ", head)
        if not 24 <= length <= FRAME_BYTES_LIMIT or magic != b"CR" or version != 1:
            raise Broken("that is no frame")
        body = self.exactly(length - 24)
        if crc32c(head[8:] + body) != checksum:
            raise Broken("a frame was damaged on its way")
        if kind == FAULT:
            number, = struct.unpack_from("<H", body)
            raise Broken(f"fault {number}: {body[8:].decode(errors='replace')}")
        with self.lock:
            answer = self.open.pop(request_id, None)
        if answer is None:
            raise Broken("an answer to nothing")
        if kind == REFUSED:
            number, _, retry_after_ms = struct.unpack_from("<HHI", body)
            answer.set_exception(Refused(number, retry_after_ms, body[8:].decode(errors="replace")))
        elif flags & MORE:
            raise Broken("a page, where none is due")
        else:
            answer.set_result(body)

    def exactly(self, count):
        data = bytearray()
        while len(data) < count:
            some = self.socket.recv(count - len(data))
            if not some:
                raise Broken("the server closed the connection")
            data += some
        return bytes(data)

    def close(self, why):
        with self.lock:
            self.lose_locked(why)

    def lose_locked(self, why):
        if self.lost:
            return
        self.lost = str(why)
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed already
        for answer in self.open.values():
            answer.set_exception(Broken(self.lost))
        self.open.clear()


# --- bodies ---------------------------------------------------------------------------------------------------------------------


def text(value):
    """A String of a control body."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


class Reader:
    """Reads a control body from its beginning."""

    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, form):
        values = struct.unpack_from("<" + form, self.body, self.at)
        self.at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text(self):
        count = self.take("Q")
        value = self.body[self.at:self.at + count].decode()
        self.at += count
        return value


class Job:
    def __init__(self, reader):
        self.id = reader.take("16s")
        self.attempt = reader.take("I")
        self.sku = reader.text()
        self.quantity, self.ends_unix_ms = reader.take("HQ")

    def __str__(self):
        return f"{uuid.UUID(bytes=self.id)} ({self.quantity} × {self.sku}, attempt {self.attempt})"


def row(line, secret):
    """A card: no label, never expires, no amounts."""
    return struct.pack("<QQqqHHI", line, 0, AMOUNT_NONE, AMOUNT_NONE, 0, len(secret), 0) + secret


# --- the worker -----------------------------------------------------------------------------------------------------------------


class Failure(Exception):
    """There are no cards for a job: for now, or for good."""

    def __init__(self, reason, for_good=False):
        super().__init__(reason)
        self.for_good = for_good


class Worker:
    def __init__(self, options, make):
        self.options, self.make = options, make
        self.stopping = threading.Event()
        self.accepted = False  # the server has answered an offer: what is refused from then on may pass
        self.lock = threading.Lock()
        self.connection = None
        self.connecting = threading.Lock()
        self.frame_bytes_max = 1 << 16
        self.room = threading.Semaphore(options.jobs)
        self.leases = {}  # job -> (when half of its lease is over, its lease in seconds)
        self.counts = dict.fromkeys(["jobs", "cards", "rejected", "failed", "late"], 0)

    def run(self):
        """Takes jobs until it is told to stop, then finishes those under way."""
        threading.Thread(target=self.keep_leased, daemon=True).start()
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            while not self.stopping.is_set():
                room = self.take_room()
                jobs = self.take_jobs(room) if room else []
                for job in jobs:
                    pool.submit(self.work, job)
                for _ in range(room - len(jobs)):
                    self.room.release()

    def take_room(self):
        """Waits for room for a job; returns for how many there is."""
        if not self.room.acquire(timeout=0.5):
            return 0
        room = 1
        while room < 4096 and self.room.acquire(blocking=False):
            room += 1
        return room

    def take_jobs(self, room):
        wait_s = 2.0  # and that long the end may take, too
        names = text(self.options.channel) + text(self.options.worker)
        body = names + struct.pack("<II", room, int(wait_s * 1000))
        reader = Reader(self.ask_until_answered(TAKE_JOBS, body, wait_s=wait_s, once=True) or bytes(12))
        lease_ms, count = reader.take("IQ")
        self.accepted = True
        jobs = [Job(reader) for _ in range(count)]
        with self.lock:
            for job in jobs:
                self.counts["jobs"] += 1
                self.leases[job] = (time.monotonic() + lease_ms / 2000, lease_ms / 1000)
        return jobs

    def work(self, job):
        try:
            self.deliver(job, self.make(job))
        except Failure as failure:
            self.count("failed")
            what = FAIL_FOR_GOOD if failure.for_good else FAIL_FOR_NOW
            self.end_job(job, what, reason=str(failure))
        except Exception as error:  # whatever goes wrong with one job, the others go on
            print(f"{job}: {error!r}", file=sys.stderr)
            self.end_job(job, FAIL_FOR_NOW, reason="the worker broke down")
        finally:
            with self.lock:
                self.leases.pop(job, None)
            self.room.release()

    def deliver(self, job, secrets):
        """Until the server has answered: what it accepted is stock, and what comes again is rejected."""
        rest = list(enumerate(secrets, 1))
        while True:
            rows, rest = self.frameful(rest)
            sku, channel = job.sku.encode(), self.options.channel.encode()
            flags = 0 if rest else ALL
            head = struct.pack("<16sIHHH6x", job.id, job.attempt, flags, len(sku), len(channel))
            body = head + sku + channel + b"".join(rows)
            reader = Reader(self.ask_until_answered(DELIVER_JOB, body, count=len(rows)))
            _, accepted, rejected = reader.take("QQQ")
            rejections = [reader.take("QH") for _ in range(rejected)]
            state, missing = reader.take("HH")
            with self.lock:
                self.counts["cards"] += accepted
                self.counts["rejected"] += rejected
            for line, reason in rejections:
                print(f"{job}: card {line} was rejected as {reason}", file=sys.stderr)
            if not rest:
                if state > 2:
                    self.count("late")
                    print(f"{job}: {JOB_STATES.get(state, state)}, {missing} missing; {accepted} are stock", file=sys.stderr)
                return

    def frameful(self, numbered):
        """As many rows as one frame takes, and what is left."""
        room = min(self.frame_bytes_max, 1 << 16) - 24 - 32 - 2 * 64
        rows = []
        for nth, (line, secret) in enumerate(numbered):
            packed = row(line, secret)
            room -= len(packed)
            if rows and (room < 0 or nth == ROWS_MAX):
                return rows, numbered[nth:]
            rows.append(packed)
        return rows, []

    def end_job(self, job, what, extend_ms=0, reason=""):
        reason = reason.encode()[:256].decode(errors="ignore")
        head = text(self.options.channel) + job.id + struct.pack("<IHI", job.attempt, what, extend_ms)
        try:
            return Reader(self.connected().ask(END_JOB, head + text(reason))).take("HI")
        except (Broken, Refused) as error:
            print(f"{job}: {error}", file=sys.stderr)  # its lease runs out, or is extended a little later
            return 2, 0

    def keep_leased(self):
        """Extends the lease of whatever takes long, whenever half of it is over."""
        while True:
            time.sleep(0.05)
            now = time.monotonic()
            with self.lock:
                due = [(job, lease_s) for job, (at, lease_s) in self.leases.items() if at <= now]
            for job, lease_s in due:
                state, left_ms = self.end_job(job, EXTEND, extend_ms=max(1, int(lease_s * 1000)))
                with self.lock:
                    if state != 2:
                        self.leases.pop(job, None)  # it is not this worker's any more
                    elif job in self.leases:
                        self.leases[job] = (now + max(left_ms / 2000, 0.25), lease_s)

    def ask_until_answered(self, kind, body, count=0, wait_s=0.0, once=False):
        """Asks again after whatever passes. `once`: not again once the worker is told to stop; then None."""
        pause_s = 0.02
        while True:
            try:
                return self.connected().ask(kind, body, count, wait_s)
            except Refused as refused:
                if refused.number not in PASSING or (refused.number >= CHANNEL_UNKNOWN and not self.accepted):
                    self.stopping.set()
                    raise
                print(f"{refused}; trying again", file=sys.stderr)
                pause_s = max(pause_s, refused.retry_after_s)
            except Broken as broken:
                print(f"{broken}; trying again", file=sys.stderr)
            if once and self.stopping.is_set():
                return None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 1.0)

    def connected(self):
        """The connection of the moment, or a new one."""
        with self.connecting:
            if self.connection is None or self.connection.lost:
                try:
                    self.connection = Connection(*self.options.server)
                except OSError as error:
                    raise Broken(error) from None
                self.frame_bytes_max = self.connection.frame_bytes_max
            return self.connection

    def count(self, what):
        with self.lock:
            self.counts[what] += 1


# --- the supplier behind it -----------------------------------------------------------------------------------------------------


class Supplier:
    """Makes codes, or reads them from a file; slow and unreliable as far as it is told to be."""

    def __init__(self, options):
        self.options = options
        self.lines = open(options.file, "rb") if options.file else None
        self.lock = threading.Lock()
        self.asked = 0

    def make(self, job):
        time.sleep(self.options.delay)
        with self.lock:
            self.asked += 1
            share = self.options.fail_share
            if int(self.asked * share) > int((self.asked - 1) * share):
                raise Failure("the supplier does not answer")
            secrets = list(itertools.islice(self.secrets(), job.quantity))
        if not secrets:
            raise Failure("the supplier is sold out")
        return secrets  # what there is, also if it is not enough

    def secrets(self):
        while self.lines:
            line = self.lines.readline()
            if not line:
                return
            yield line.rstrip(b"\r\n")
        while True:
            yield str(uuid.uuid4()).encode()  # never the same twice: what is stock already fills no order


def server(url):
    host, _, port = url.removeprefix("croupier://").rpartition(":")
    return (host, int(port)) if host else (port, 7733)


def main():
    parser = argparse.ArgumentParser(description="A worker of a Croupier issuer.")
    parser.add_argument("channel")
    parser.add_argument("--server", type=server, default=("127.0.0.1", 7733), metavar="croupier://HOST:PORT")
    parser.add_argument("--worker", help="what it is called (default: the channel's name)")
    parser.add_argument("--jobs", type=int, default=16, help="most jobs at a time")
    parser.add_argument("--file", help="codes, one on a line; when it is used up, jobs fail")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that a job takes")
    parser.add_argument("--fail-share", type=float, default=0.0, help="share of jobs that fail, 0 to 1")
    options = parser.parse_args()
    options.worker = options.worker or options.channel
    worker = Worker(options, Supplier(options).make)

    def stop(*_):
        if worker.stopping.is_set():
            os._exit(130)  # asked twice: what is under way is left to its lease
        worker.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        worker.run()
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    finally:
        print(", ".join(f"{count} {what}" for what, count in worker.counts.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
