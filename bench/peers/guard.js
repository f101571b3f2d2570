// The check in nginx with njs: it remembers no events.
import crypto from 'crypto';

const KEY = '@KEY@';

function refuse(r, status, code) {
    r.headersOut['content-type'] = 'application/problem+json';
    r.return(status, `{"code":"${code}"}`);
}

function equal(a, b) {
    if (a.length !== b.length) {
        return false;
    }
    let difference = 0;
    for (let i = 0; i < a.length; i++) {
        difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
    }
    return difference === 0;
}

function check(r) {
    const timestamp = r.headersIn['x-webhook-timestamp'];
    const signature = r.headersIn['x-webhook-signature'];
    if (!timestamp || !signature) {
        return refuse(r, 401, 'signature_missing');
    }
    if (!/^\d{10}$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) {
        return refuse(r, 401, 'timestamp_too_old');
    }
    let body;
    try {
        body = JSON.parse(r.requestText);
    } catch (e) {
        return refuse(r, 400, 'json_malformed');
    }
    const data = body.data || {};
    const id = data.task_id || data.taskId || body.taskId;
    if (typeof id !== 'string') {
        return refuse(r, 422, 'id_missing');
    }
    const mac = crypto.createHmac('sha256', KEY).update(`${id}.${timestamp}`).digest('base64');
    if (!equal(mac, signature)) {
        return refuse(r, 401, 'signature_mismatch');
    }
    r.internalRedirect('@app');
}

export default { check };
