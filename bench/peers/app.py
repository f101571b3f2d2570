"""An application with FastAPI that makes the check itself; below /plain it makes none."""
import base64
import binascii
import hashlib
import hmac
import json
import os
import time
from collections import OrderedDict

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

KEY = os.environ["KEY"].encode()
app = FastAPI()
delivered = OrderedDict()


def refuse(status, code):
    return JSONResponse({"code": code}, status)


@app.post("/callbacks/suno")
async def callback(request: Request):
    timestamp = request.headers.get("x-webhook-timestamp")
    signature = request.headers.get("x-webhook-signature")
    if not timestamp or not signature:
        return refuse(401, "signature_missing")
    if len(timestamp) != 10 or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > 300:
        return refuse(401, "timestamp_too_old")
    try:
        body = json.loads(await request.body())
    except ValueError:
        return refuse(400, "json_malformed")
    data = body.get("data") or {}
    task = data.get("task_id") or data.get("taskId") or body.get("taskId")
    if not isinstance(task, str):
        return refuse(422, "id_missing")
    expected = hmac.new(KEY, f"{task}.{timestamp}".encode(), hashlib.sha256).digest()
    try:
        given = base64.b64decode(signature, validate=True)
    except binascii.Error:
        return refuse(401, "signature_malformed")
    if not hmac.compare_digest(given, expected):
        return refuse(401, "signature_mismatch")
    event = (task, data.get("callbackType"), body.get("code"))
    if event in delivered:
        return {"status": "duplicate"}
    if len(delivered) >= 100000:
        delivered.popitem(last=False)
    delivered[event] = time.time()
    return {"status": "received"}


@app.post("/plain")
async def plain(request: Request):
    json.loads(await request.body())
    return {"status": "received"}
