// Canonical addresses and their keys, as docs/ucxl.md and docs/protocol.md have them.
import { createHash } from 'node:crypto'

const NAME = '[A-Za-z0-9._-]{1,64}'
const SEGMENT = '(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+'
const CANONICAL = new RegExp(`^ucxl://(${NAME}):(${NAME})@(${NAME}):(${NAME})/\\*\\^((?:/${SEGMENT})*)$`)
const UNRESERVED = /[A-Za-z0-9._~-]/

/** Whether a text is the canonical address of one thing: not a pattern, and encoded only where that is needed. */
export function isCanonical (text) {
  const found = typeof text === 'string' && text.length <= 1024 ? CANONICAL.exec(text) : null
  if (found === null || found.slice(1, 5).includes('any')) return false
  return found[5].split('/').slice(1).every(isCanonicalSegment)
}

function isCanonicalSegment (segment) {
  const encoded = segment.match(/%../g) ?? []
  const isNeeded = (triplet) => !UNRESERVED.test(String.fromCharCode(parseInt(triplet.slice(1), 16)))
  return segment !== '.' && segment !== '..' && segment.length - 2 * encoded.length <= 128 && encoded.every(isNeeded)
}

/** The key of a canonical address: 49 ASCII characters. */
export const keyOf = (canonical) => '/ucxl/' + createHash('sha256').update(canonical).digest('base64url')
