#!/usr/bin/env python3
"""Redis and SeaweedFS on loopback, for a fleet on one machine.

    services.py up        starts those that do not run, prints the environment to use
    services.py down      stops both; their data stays
    services.py status    prints which of them run
    services.py exec CMD  runs CMD against AGRPO_REDIS and AGRPO_STORE, or against the local pair

State lies under AGRPO_STATE (default .agrpo/services): data, logs, one pid file each, and `env`, a file to
source. A process is identified by pid, start time and boot, so a stale pid file never stops another process.
Ports: 6379 for Redis; 18333 and the next three, and all four + 10000, for SeaweedFS. Where one is taken, free
ones near by; AGRPO_REDIS_PORT and AGRPO_S3_PORT choose. Not for production: the credentials are those in infra/s3.json.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # nothing is written into the checkout
import s3  # noqa: E402

INFRA = pathlib.Path(__file__).resolve().parent
STATE = INFRA.parent / os.environ.get("AGRPO_STATE", ".agrpo/services")
BUCKET = "agrpo"
REDIS_PORT, S3_PORT = 6379, 18333
STOP_S = 35  # SeaweedFS takes about 26 s to stop after SIGTERM


def say(text):
    print(text, file=sys.stderr)


def fail(text, code=1):
    say(f"error: {text}")
    sys.exit(code)


# --- processes ---------------------------------------------------------------------------------


def birth(pid):
    """Distinguishes this process from a later one with the same pid; None if it does not run."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{fields[19]}@{boot}"


def running(name):
    """The record of the service's start, if the same process still runs."""
    try:
        noted = json.loads((STATE / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None
    return noted if birth(noted["pid"]) == noted["birth"] else None


def start(name, command, **notes):
    """Starts a service in a session of its own: Ctrl-C in the terminal does not reach it."""
    log = STATE / f"{name}.log"
    with open(log, "ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True, cwd=STATE)
    noted = {"pid": process.pid, "birth": birth(process.pid), **notes}
    fresh = STATE / f"{name}.pid.new"
    fresh.write_text(json.dumps(noted))
    fresh.rename(STATE / f"{name}.pid")
    return process, log


def stop(names):
    """Sends SIGTERM to all, and SIGKILL to those that run on; both services survive a SIGKILL without loss."""
    left = {name: noted["pid"] for name in names if (noted := running(name))}
    if not left:
        say("nothing runs")
    for name, pid in left.items():
        os.kill(pid, signal.SIGTERM)
    if left:
        say(f"stopping {' and '.join(left)} (up to half a minute)")
    deadline = time.monotonic() + STOP_S
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = {name: pid for name, pid in left.items() if running(name)}
    for name, pid in left.items():
        say(f"{name} did not stop within {STOP_S} s: killed")
        os.kill(pid, signal.SIGKILL)
    for name in names:
        (STATE / f"{name}.pid").unlink(missing_ok=True)
    (STATE / "env").unlink(missing_ok=True)


@contextlib.contextmanager
def alone():
    """Holds a lock, so that only one `up` or `down` runs at a time."""
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- ports -------------------------------------------------------------------------------------


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def chosen_port(variable, default, step, needed):
    """The port to listen on: the one from the environment, or the first of five whose ports `needed(port)` are free."""
    given = os.environ.get(variable)
    try:
        wanted = int(given or default)
    except ValueError:
        fail(f"{variable}={given} is no port number", 2)
    if not 0 < wanted <= 55000:
        fail(f"{variable}={wanted} is out of range; choose one of 1024..55000", 2)
    for port in range(wanted, wanted + (1 if given else 5 * step), step):
        busy = [p for p in needed(port) if not is_free(p)]
        if not busy:
            if port != wanted:
                say(f"port {wanted} is taken, using {port}")
            return port
    fail(f"port {busy[0]} is taken by another program; set {variable} to a free one and run the same command again", 4)


# --- the two services --------------------------------------------------------------------------


def redis_answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def up_redis():
    if not (noted := running("redis")):
        program = subprocess.run([INFRA / "need.sh", "redis-server"], stdout=subprocess.PIPE, text=True)
        if program.returncode != 0:
            sys.exit(program.returncode)
        port = chosen_port("AGRPO_REDIS_PORT", REDIS_PORT, 1, lambda p: [p])
        data = STATE / "redis"
        data.mkdir(exist_ok=True)
        process, log = start("redis", [program.stdout.strip(), INFRA / "redis.conf", "--port", str(port),
                                       "--dir", str(data)], port=port)
        deadline = time.monotonic() + 30
        while not redis_answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                fail(f"Redis did not start; its last words: {last_words(log)} ({log})", 4)
            time.sleep(0.05)
        noted = running("redis")
    return noted["port"]


def up_seaweedfs(key, secret):
    """Starts the server unless it runs, and waits until the bucket can be used."""
    process, log = None, STATE / "seaweedfs.log"
    if not (noted := running("seaweedfs")):
        found = subprocess.run([sys.executable, INFRA / "fetch.py", "seaweedfs"], stdout=subprocess.PIPE, text=True)
        if found.returncode != 0:
            sys.exit(found.returncode)
        port = chosen_port("AGRPO_S3_PORT", S3_PORT, 10, lambda p: [p + i + far for i in range(4) for far in (0, 10000)])
        data = STATE / "seaweedfs"
        data.mkdir(exist_ok=True)
        say("starting SeaweedFS (5 to 25 s)")
        process, log = start("seaweedfs", [
            found.stdout.strip(), "-logtostderr", "server", "-dir", str(data), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1",
            "-s3", "-s3.port", str(port), "-s3.port.iceberg", "0", "-s3.port.lance", "0", "-s3.config", str(INFRA / "s3.json"),
            "-master.port", str(port + 1), "-volume.port", str(port + 2), "-filer", "-filer.port", str(port + 3),
            "-master.volumeSizeLimitMB", "512", "-volume.max", "0", "-master.telemetry=false",
        ], port=port)
        noted = running("seaweedfs") or {"port": port}
    endpoint = f"http://127.0.0.1:{noted['port']}"
    trouble = s3.prepare(endpoint, BUCKET, key, secret, alive=lambda: process is None or process.poll() is None)
    if trouble:
        fail(f"SeaweedFS at {endpoint} is not ready: {trouble}; its last words: {last_words(log)} ({log})", 4)
    return endpoint


def last_words(log):
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "none")


# --- verbs -------------------------------------------------------------------------------------


def up():
    """Starts both services; returns the environment variables that reach them."""
    identity = json.loads((INFRA / "s3.json").read_text())["identities"][0]["credentials"][0]
    key, secret = identity["accessKey"], identity["secretKey"]
    with alone():
        endpoint, port = up_seaweedfs(key, secret), up_redis()
        environment = {
            "AGRPO_REDIS": f"redis://127.0.0.1:{port}",
            "AGRPO_STORE": f"s3://{BUCKET}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT": endpoint,
            "AWS_REGION": s3.REGION,
            "AWS_ALLOW_HTTP": "true",
        }
        fresh = STATE / "env.new"
        fresh.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items()))
        fresh.rename(STATE / "env")
    return environment


def status():
    for name in ("redis", "seaweedfs"):
        noted = running(name)
        print(f"{name}: " + (f"runs, port {noted['port']}, pid {noted['pid']}" if noted else "does not run"))


def execute(command):
    given = [name for name in ("AGRPO_REDIS", "AGRPO_STORE") if os.environ.get(name)]
    if len(given) == 1:
        other = "AGRPO_STORE" if given == ["AGRPO_REDIS"] else "AGRPO_REDIS"
        fail(f"{given[0]} is set and {other} is not; set both for your own fleet, or neither for Redis and SeaweedFS on this machine", 2)
    environment = dict(os.environ)
    if not given:
        fresh = not (running("redis") and running("seaweedfs"))
        local = up()
        say(f"AGRPO_REDIS and AGRPO_STORE are not set: using the local pair ({local['AGRPO_REDIS']}, {local['AGRPO_STORE']} "
            f"at {local['AWS_ENDPOINT']})" + (f"; `make worker` joins it, `source {os.path.relpath(STATE)}/env` gives it to a shell, `make down` stops it" if fresh else ""))
        environment.update(local)
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        fail(f"cannot run {command[0]}: {error.strerror}")


def main():
    verb, *rest = sys.argv[1:] or [""]
    if verb == "up" and not rest:
        up()
        print((STATE / "env").read_text(), end="")
    elif verb == "down" and not rest:
        with alone():
            stop(["redis", "seaweedfs"])
    elif verb == "status" and not rest:
        status()
    elif verb == "exec" and rest:
        execute(rest)
    else:
        fail("usage: services.py up | down | status | exec COMMAND...", 2)


if __name__ == "__main__":
    main()
