// A strict reader and a writer of msgpack, for the headers of envelopes (docs/protocol.md, 'The header').
//
// The decoders on npm lose what the protocol depends on: whether a number is 1 or 1.0, a name that a map has twice, and
// bytes that are not UTF-8. Here integers are BigInt and fractions are numbers, bin is Uint8Array, a map is Map.

const ITEMS_MAX = 1024
const DEPTH_MAX = 512
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class NotMsgpack extends Error {}

/** The one value in these bytes. Throws NotMsgpack, also for bytes behind it. */
export function decode (bytes) {
  const reader = new Reader(bytes)
  const value = reader.value(0)
  if (reader.at !== bytes.length) throw new NotMsgpack(`${bytes.length - reader.at} bytes behind the value`)
  return value
}

/** The value at the beginning of these bytes, whatever follows. Throws NotMsgpack. */
export const decodeFirst = (bytes) => new Reader(bytes).value(0)

class Reader {
  constructor (bytes) {
    this.bytes = bytes
    this.at = 0
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  value (depth) {
    if (depth > DEPTH_MAX) throw new NotMsgpack('it is nested too deeply')
    const head = this.view.getUint8(this.skip(1))
    if (head < 0x80) return BigInt(head)
    if (head >= 0xe0) return BigInt(head - 0x100)
    if (head < 0x90) return this.map(head & 0x0f, depth)
    if (head < 0xa0) return this.array(head & 0x0f, depth)
    if (head < 0xc0) return this.text(head & 0x1f)
    switch (head) {
      case 0xc0: return null
      case 0xc2: return false
      case 0xc3: return true
      case 0xc4: case 0xc5: case 0xc6: return this.bin(this.size(head - 0xc4))
      case 0xca: return this.view.getFloat32(this.skip(4))
      case 0xcb: return this.view.getFloat64(this.skip(8))
      case 0xcc: case 0xcd: case 0xce: return BigInt(this.size(head - 0xcc))
      case 0xcf: return this.view.getBigUint64(this.skip(8))
      case 0xd0: return BigInt(this.view.getInt8(this.skip(1)))
      case 0xd1: return BigInt(this.view.getInt16(this.skip(2)))
      case 0xd2: return BigInt(this.view.getInt32(this.skip(4)))
      case 0xd3: return this.view.getBigInt64(this.skip(8))
      case 0xd9: case 0xda: case 0xdb: return this.text(this.size(head - 0xd9))
      case 0xdc: case 0xdd: return this.array(this.size(head - 0xdc + 1), depth)
      case 0xde: case 0xdf: return this.map(this.size(head - 0xde + 1), depth)
    }
    throw new NotMsgpack(`a value of the type 0x${head.toString(16)}`)
  }

  /** An unsigned number of 1, 2 or 4 bytes: `power` is 0, 1 or 2. */
  size (power) {
    const at = this.skip(1 << power)
    return power === 0 ? this.view.getUint8(at) : power === 1 ? this.view.getUint16(at) : this.view.getUint32(at)
  }

  skip (count) {
    const at = this.at
    if (count > this.bytes.length - at) throw new NotMsgpack('it is cut off')
    this.at += count
    return at
  }

  bin (size) {
    const at = this.skip(size)
    return this.bytes.subarray(at, at + size)
  }

  text (size) {
    try {
      return utf8.decode(this.bin(size))
    } catch (error) {
      if (error instanceof NotMsgpack) throw error
      throw new NotMsgpack('a text is not UTF-8')
    }
  }

  array (count, depth) {
    if (count > ITEMS_MAX) throw new NotMsgpack(`an array of ${count} elements`)
    const items = []
    for (let number = 0; number < count; number++) items.push(this.value(depth + 1))
    return items
  }

  map (count, depth) {
    if (count > ITEMS_MAX) throw new NotMsgpack(`a map of ${count} entries`)
    const found = new Map()
    for (let number = 0; number < count; number++) {
      const name = this.value(depth + 1)
      if (found.has(name)) throw new NotMsgpack('a map has a name twice')
      found.set(name, this.value(depth + 1))
    }
    return found
  }
}

/** The shortest form of a value: BigInt, boolean, string, Uint8Array, Array, Map. */
export function encode (value) {
  if (typeof value === 'boolean') return Buffer.of(value ? 0xc3 : 0xc2)
  if (typeof value === 'bigint') return integer(value)
  if (typeof value === 'string') {
    const text = Buffer.from(value, 'utf8')
    return Buffer.concat([head(text.length, [0xa0, 32], [0xd9, 0xda, 0xdb]), text])
  }
  if (value instanceof Uint8Array) return Buffer.concat([head(value.length, null, [0xc4, 0xc5, 0xc6]), value])
  if (Array.isArray(value)) return Buffer.concat([head(value.length, [0x90, 16], [null, 0xdc, 0xdd]), ...value.map(encode)])
  if (value instanceof Map) {
    return Buffer.concat([head(value.size, [0x80, 16], [null, 0xde, 0xdf]), ...[...value].flat().map(encode)])
  }
  throw new TypeError(`no msgpack for ${typeof value}`)
}

/** The head of something with a length; `heads` are those with 1, 2 and 4 bytes of length. */
function head (size, short, heads) {
  if (short !== null && size < short[1]) return Buffer.of(short[0] | size)
  if (size < 0x100 && heads[0] !== null) return Buffer.of(heads[0], size)
  const found = Buffer.alloc(size < 0x10000 ? 3 : 5)
  if (size < 0x10000) found.writeUInt16BE(size, 1)
  else found.writeUInt32BE(size, 1)
  found[0] = size < 0x10000 ? heads[1] : heads[2]
  return found
}

function integer (value) {
  if (value < 0n) throw new TypeError('the protocol has no number below 0')
  if (value < 0x80n) return Buffer.of(Number(value))
  if (value < 0x100n) return Buffer.of(0xcc, Number(value))
  const [code, size] = value < 0x10000n ? [0xcd, 2] : value < 0x100000000n ? [0xce, 4] : [0xcf, 8]
  const found = Buffer.alloc(9)
  found.writeBigUInt64BE(value, 1)
  return Buffer.concat([Buffer.of(code), found.subarray(9 - size)])
}
