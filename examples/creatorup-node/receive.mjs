// The way in: an HTTP server that takes the users the hub pushes, as docs/user-sync.md describes.

import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import { instant } from './users.mjs';

const PATH = '/api/v1/digiup/user/sync';
/** Far more than any user has. */
const LONGEST_BODY = 1 << 20;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** A request that is answered with an error. 4xx, except 401, 403, 408, 425 and 429, makes the hub give the push up. */
class Fault extends Error {
  constructor(status, code, reason, message, details = []) {
    super(message);
    Object.assign(this, { status, code, reason, details });
  }
}

/** A server for one API key that keeps what it is pushed in `users`; `say` is told of each push and each refusal. */
export function receiver({ apiKey, users, say }) {
  const expected = digest(apiKey);
  const server = createServer(async (request, response) => {
    const requestId = plain(request.headers['x-request-id']) ?? randomUUID().replaceAll('-', '');
    const answer = (status, body, headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': requestId, ...headers });
      response.end(JSON.stringify(body));
    };
    try {
      if (request.url === '/healthz' && request.method === 'GET') {
        return answer(200, { status: 'serving' });
      }
      if (request.url !== PATH) {
        throw new Fault(404, 'NOT_FOUND', 'NOT_FOUND', 'there is nothing here');
      }
      if (request.method !== 'POST') {
        throw new Fault(405, 'UNIMPLEMENTED', 'MALFORMED_REQUEST', 'users are pushed by POST');
      }
      if (!timingSafeEqual(digest(request.headers['x-api-key'] ?? ''), expected)) {
        throw new Fault(401, 'UNAUTHENTICATED', 'INVALID_CREDENTIALS', 'the API key is missing or wrong');
      }
      const push = checked(await json(request));
      const { copy, changed } = users.take(push, request.headers['idempotency-key']);
      say({
        push: push.digiup_user_id,
        deleted: push.deleted,
        changed,
        creatorup_user_id: copy.creatorup_user_id,
        request_id: requestId,
      });
      const { creatorup_user_id, synced_at } = copy;
      answer(200, { success: true, data: { creatorup_user_id, changed, synced_at } });
    } catch (error) {
      // What is no fault of the request, such as a full disk, is 500, and the hub tries again.
      const fault =
        error instanceof Fault ? error : new Fault(500, 'INTERNAL', 'INTERNAL', 'the push could not be stored');
      say({
        refused: fault.status,
        reason: fault.reason,
        message: fault === error ? fault.message : String(error),
        request_id: requestId,
      });
      const { code, message, reason, details } = fault;
      const headers = fault.status === 405 ? { allow: 'POST' } : {};
      // The rest of a body that nobody reads would be taken for the next request.
      answer(
        fault.status,
        { success: false, error: { code, message, reason, details }, request_id: requestId },
        { ...headers, connection: 'close' },
      );
    }
  });
  server.requestTimeout = 30_000;
  return server;
}

/** Digests have one length and say nothing about how much of a guess was right. */
function digest(text) {
  return createHash('sha256').update(text).digest();
}

/** A request id as the hub makes them: nothing that could forge a line of a log. */
function plain(id) {
  return /^[A-Za-z0-9._-]{1,64}$/.test(id ?? '') ? id : undefined;
}

async function json(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > LONGEST_BODY) {
      throw new Fault(413, 'OUT_OF_RANGE', 'BODY_TOO_LARGE', `a body has ${LONGEST_BODY} bytes at most`);
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Fault(400, 'INVALID_ARGUMENT', 'MALFORMED_REQUEST', 'the body is not JSON');
  }
}

/** A push that can be stored. Members nobody here knows are kept: the hub may learn to tell more. */
function checked(push) {
  const wrong = [
    ['digiup_user_id', UUID.test(push?.digiup_user_id), 'must be a UUID'],
    ['as_of', typeof push?.as_of === 'string' && instant(push.as_of) !== null, 'must be an RFC 3339 time'],
    ['deleted', typeof push?.deleted === 'boolean', 'must be true or false'],
    [
      'user',
      push?.deleted === true || push?.user?.id === push?.digiup_user_id,
      'must be the user, unless they were deleted',
    ],
  ].filter(([, isRight]) => !isRight);
  if (wrong.length > 0) {
    const details = wrong.map(([field, , description]) => ({ field, description }));
    throw new Fault(
      400,
      'INVALID_ARGUMENT',
      'INVALID_FIELD',
      details.map(({ field, description }) => `${field} ${description}`).join('; '),
      details,
    );
  }
  return push;
}
