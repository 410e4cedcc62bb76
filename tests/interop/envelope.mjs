// Envelopes of format 2, read, verified and made by docs/protocol.md alone ('Envelopes').
import { createHash } from 'node:crypto'
import { privateKeyOf, publicKeyOf, sign, verify } from './keys.mjs'
import { NotMsgpack, decode as unpack, decodeFirst, encode as pack } from './msgpack.mjs'
import { isCanonical, keyOf } from './ucxl.mjs'

const DOMAIN = Buffer.from('bzzz/envelope/2\n')
const ENCODED_BYTES_MAX = 1048576
const HEADER_BYTES_MAX = 32768
const VERSION_MAX = (1n << 64n) - 1n
const AHEAD_MS_MAX = 60000n
const FIELDS = 10
const PARENTS_MAX = 256
const META_ENTRIES_MAX = 64
const META_BYTES_MAX = 16384
const CONTENT_TYPE = /^[ -~]{1,255}$/

/** An envelope that is not taken; `code` is that of docs/protocol.md, 'Checks'. */
export class Refused extends Error {
  constructor (code, message) {
    super(message)
    this.code = code
  }
}

const malformed = (message) => new Refused('UCXL-400-INVALID_PAYLOAD', message)
const sha256 = (bytes) => createHash('sha256').update(bytes).digest()

/** The envelope in these bytes: structure and content are checked, the signature is not. Throws Refused. */
export function decode (encoded) {
  if (encoded.length > ENCODED_BYTES_MAX) throw new Refused('UCXL-413-TOO_LARGE', `${encoded.length} bytes`)
  refuseOtherMajors(encoded)
  if (encoded[0] !== 0x93) throw malformed('not an array of header, signature and content')
  const [header, afterHeader] = bin(encoded, 1, 'header')
  const [signature, afterSignature] = bin(encoded, afterHeader, 'signature')
  if (signature.length !== 64) throw malformed(`a signature of ${signature.length} bytes`)
  const [content, end] = bin(encoded, afterSignature, 'content')
  if (end !== encoded.length) throw malformed(`${encoded.length - end} bytes behind the content`)
  const facts = readHeader(header)
  if (BigInt(content.length) !== facts.contentSize) throw malformed('the content has another size')
  if (!sha256(content).equals(facts.contentDigest)) throw malformed('the content is not the one that was signed')
  return { ...facts, header, signature, content }
}

/** Check the signature, and that the version is not ahead of the clock. Throws Refused. */
export function check (envelope, nowMs) {
  if (!verify(envelope.author, Buffer.concat([DOMAIN, envelope.header]), envelope.signature)) {
    throw new Refused('UCXL-422-UNPROCESSABLE', `the signature is not that of ${envelope.author}`)
  }
  const aheadMs = (envelope.version >> 16n) - BigInt(nowMs)
  if (aheadMs > AHEAD_MS_MAX) throw new Refused('UCXL-422-UNPROCESSABLE', `${aheadMs} ms ahead of the clock`)
}

/** The encoded envelope. `version` is a BigInt, `parents` digests in any order, `meta` a list of pairs. */
export function seal (seed, { address, content, contentType, version, parents = [], meta = [], deleted = false }) {
  const key = privateKeyOf(seed)
  const header = pack([
    [2n, 0n], address, sha256(content), BigInt(content.length), contentType, version,
    [...parents].sort(Buffer.compare), key.peerId, new Map(meta), deleted
  ])
  return Buffer.concat([Buffer.of(0x93), ...[header, sign(key, Buffer.concat([DOMAIN, header])), content].map(pack)])
}

/** Below 0, 0 or above: the total order of two versions. */
export function compare (one, other) {
  if (one.version !== other.version) return one.version < other.version ? -1 : 1
  return Buffer.compare(Buffer.from(one.author), Buffer.from(other.author)) || Buffer.compare(one.digest, other.digest)
}

// -- the parts --------------------------------------------------------------------------------------------------------

/** The bytes of the msgpack bin at an offset, which must have its shortest head, and the offset behind it. */
function bin (encoded, at, part) {
  const width = { 0xc4: 1, 0xc5: 2, 0xc6: 4 }[encoded[at]]
  if (width === undefined || at + 1 + width > encoded.length) throw malformed(`the ${part} is not there as bytes`)
  const size = encoded.readUIntBE(at + 1, width)
  const start = at + 1 + width
  if (width > 1 && size < 2 ** (4 * width)) throw malformed(`the length of the ${part} is longer than necessary`)
  if (size > encoded.length - start) throw malformed(`the ${part} is cut off`)
  return [encoded.subarray(start, start + size), start + size]
}

/** Format 1 had its fields in the outer array, [major, minor] the first of them. */
function refuseOtherMajors (encoded) {
  const first = { 0xdc: 3, 0xdd: 5 }[encoded[0]] ?? (encoded[0] >= 0x90 && encoded[0] <= 0x9f ? 1 : undefined)
  if (first === undefined || encoded[first] !== 0x92) return
  try {
    checkFormat(decodeFirst(encoded.subarray(first)))
  } catch (error) {
    if (error.code === 'UCXL-422-UNPROCESSABLE') throw error
  }
}

function checkFormat (format) {
  const isPair = Array.isArray(format) && format.length === 2
  if (!isPair || format.some((part) => typeof part !== 'bigint' || part < 0n)) throw malformed('no format')
  if (format[0] !== 2n) throw new Refused('UCXL-422-UNPROCESSABLE', `format ${format.join('.')}, and 2.x is read here`)
}

// -- the header -------------------------------------------------------------------------------------------------------

function readHeader (header) {
  if (header.length > HEADER_BYTES_MAX) throw new Refused('UCXL-413-TOO_LARGE', `a header of ${header.length} bytes`)
  const fields = unpacked(header)
  if (!Array.isArray(fields) || fields.length === 0) throw malformed('the header is not an array of fields')
  checkFormat(fields[0])
  if (fields.length < FIELDS || (fields.length > FIELDS && fields[0][1] === 0n)) {
    throw malformed(`format ${fields[0].join('.')} with ${fields.length} fields`)
  }
  const [format, address, contentDigest, contentSize, contentType, version, parents, author, meta, deleted] = fields
  if (!isCanonical(address)) throw new Refused('UCXL-400-INVALID_ADDRESS', 'the address is not canonical, or names no one thing')
  if (typeof contentType !== 'string' || !CONTENT_TYPE.test(contentType)) throw malformed('the content type')
  if (typeof version !== 'bigint' || version < 1n || version > VERSION_MAX) throw malformed('the version')
  checkParents(parents)
  if (publicKeyOf(author) === null) throw malformed('the author is no peer id')
  checkMeta(meta)
  if (typeof deleted !== 'boolean') throw malformed('deleted is neither true nor false')
  checkContent(header, contentDigest, contentSize, deleted)
  const digest = sha256(header)
  return {
    format, address, contentDigest, contentSize, contentType, version, parents, author, meta, deleted, digest,
    key: keyOf(address)
  }
}

function unpacked (header) {
  try {
    return unpack(header)
  } catch (error) {
    if (error instanceof NotMsgpack) throw malformed(`the header: ${error.message}`)
    throw error
  }
}

const isDigest = (value) => value instanceof Uint8Array && value.length === 32

function checkParents (parents) {
  if (!Array.isArray(parents) || parents.length > PARENTS_MAX) throw malformed('the parents')
  const isAscending = (parent, at) => isDigest(parent) && (at === 0 || Buffer.compare(parents[at - 1], parent) < 0)
  if (!parents.every(isAscending)) throw malformed('the parents are not digests, ascending')
}

function checkMeta (meta) {
  if (!(meta instanceof Map) || meta.size > META_ENTRIES_MAX) throw malformed('meta')
  const texts = [...meta].flat()
  if (texts.some((text) => typeof text !== 'string') || meta.has('')) throw malformed('meta has something else than texts')
  const size = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
  if (size > META_BYTES_MAX) throw malformed(`meta has ${size} bytes`)
}

function checkContent (header, digest, size, deleted) {
  if (!isDigest(digest)) throw malformed('the content digest')
  if (typeof size !== 'bigint' || size < 0n) throw malformed('the content size')
  if (deleted && size > 0n) throw malformed('a tombstone with content')
  if (size === 0n && !sha256(Buffer.alloc(0)).equals(digest)) throw malformed('the digest of something for no content')
  const encoded = 1n + binSize(BigInt(header.length)) + binSize(64n) + binSize(size)
  if (encoded > BigInt(ENCODED_BYTES_MAX)) throw new Refused('UCXL-413-TOO_LARGE', `${encoded} bytes encoded`)
}

const binSize = (size) => size + (size < 0x100n ? 2n : size < 0x10000n ? 3n : 5n)
