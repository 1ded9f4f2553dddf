#!/usr/bin/env python3
"""Creates a bucket on an S3 server and waits until the server is ready.

    s3.py ENDPOINT BUCKET     waits until the bucket exists and an object written to it reads back

Signs requests itself (AWS Signature Version 4), so that it needs nothing but Python. Reads the key from
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, gives up after 60 s, and prints nothing when all is well.
Supports path-style addresses, one request at a time, and small bodies only.
"""

import datetime
import hashlib
import hmac
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

REGION = "us-east-1"
TIMEOUT_S = 60


def signed(endpoint, key, secret, method, path, body=b"", now=None):
    """A request for `path` with the three signed headers that every S3 server requires."""
    now = now or datetime.datetime.now(datetime.timezone.utc)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": urllib.parse.urlsplit(endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    canonical = "\n".join([method, urllib.parse.quote(path), "",
                           *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names, digest])
    scope = f"{day}/{REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    seal = f"AWS4{secret}".encode()
    for part in (day, REGION, "s3", "aws4_request"):
        seal = hmac.new(seal, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(seal, to_sign.encode(), hashlib.sha256).hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    del headers["host"]  # urllib writes it itself
    return urllib.request.Request(endpoint + path, data=body or None, method=method, headers=headers)


def ask(endpoint, key, secret, method, path, body=b"", allowed=()):
    """The body of the answer; an HTTP error whose code is in `allowed` counts as an answer."""
    # No proxy: the server may be on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(signed(endpoint, key, secret, method, path, body), timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code in allowed:
            return error.read()
        raise


def prepare(endpoint, bucket, key, secret, timeout_s=TIMEOUT_S, alive=lambda: True):
    """None when the bucket can be used; otherwise the last error."""
    probe, body = f"/{bucket}/.ready", b"ready"
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            ask(endpoint, key, secret, "PUT", f"/{bucket}", allowed=(409,))  # 409: there already
            ask(endpoint, key, secret, "PUT", probe, body)
            if ask(endpoint, key, secret, "GET", probe) == body:
                ask(endpoint, key, secret, "DELETE", probe)
                return None
            trouble = "an object written to it read back differently"
        except (urllib.error.URLError, OSError) as error:
            trouble = str(error)
        if time.monotonic() > deadline or not alive():
            return trouble
        time.sleep(0.3)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: s3.py ENDPOINT BUCKET")
    trouble = prepare(sys.argv[1].rstrip("/"), sys.argv[2],
                      os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
    if trouble:
        sys.exit(f"error: bucket {sys.argv[2]} at {sys.argv[1]} is not ready after {TIMEOUT_S} s: {trouble}")
