// An application with Express that makes the check itself; below /plain it makes none.
'use strict';
const crypto = require('crypto');
const express = require('express');

const KEY = process.env.KEY;
const app = express();
const delivered = new Map();

app.use(express.json({ limit: '2mb' }));

function check(req, res, next) {
  const timestamp = req.get('x-webhook-timestamp');
  const signature = req.get('x-webhook-signature');
  if (!timestamp || !signature) return res.status(401).json({ code: 'signature_missing' });
  if (!/^\d{10}$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) {
    return res.status(401).json({ code: 'timestamp_too_old' });
  }
  const data = req.body.data || {};
  const id = data.task_id || data.taskId || req.body.taskId;
  if (typeof id !== 'string') return res.status(422).json({ code: 'id_missing' });
  const expected = crypto.createHmac('sha256', KEY).update(`${id}.${timestamp}`).digest();
  const given = Buffer.from(signature, 'base64');
  if (given.length !== expected.length || !crypto.timingSafeEqual(given, expected)) {
    return res.status(401).json({ code: 'signature_mismatch' });
  }
  const event = `${id}|${data.callbackType}|${req.body.code}`;
  if (delivered.has(event)) return res.json({ status: 'duplicate' });
  if (delivered.size >= 100000) delivered.delete(delivered.keys().next().value);
  delivered.set(event, Date.now());
  next();
}

app.post('/callbacks/suno', check, (req, res) => res.json({ status: 'received' }));
app.post('/plain', (req, res) => res.json({ status: 'received' }));
const server = app.listen(Number(process.env.PORT), '127.0.0.1');
server.keepAliveTimeout = 60000;
