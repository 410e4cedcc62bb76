// Ed25519 keys, peer ids and signatures, as docs/protocol.md has them ('Keys and peer ids').
import { createPrivateKey, createPublicKey, sign as cryptoSign, verify as cryptoVerify } from 'node:crypto'
import { base58btc } from 'multiformats/bases/base58'

const PEER_ID = /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/
const MULTIHASH_HEAD = Buffer.from('002408011220', 'hex')
// What stands before the 32 bytes of a key in DER (RFC 8410).
const PUBLIC_DER = Buffer.from('302a300506032b6570032100', 'hex')
const PRIVATE_DER = Buffer.from('302e020100300506032b657004220420', 'hex')

// Field and points of small order of Curve25519 in Edwards form; two y have order 8, and their negatives in x too.
const P = (1n << 255n) - 19n
const Y_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022n
const SMALL_ORDER = new Set([0n, 1n, P - 1n, Y_OF_ORDER_8, P - Y_OF_ORDER_8])

/** The public key (32 bytes) in a peer id; null when the text is no Ed25519 peer id. */
export function publicKeyOf (peerId) {
  if (typeof peerId !== 'string' || !PEER_ID.test(peerId)) return null
  const multihash = Buffer.from(base58btc.baseDecode(peerId))
  const isEd25519 = multihash.length === 38 && multihash.subarray(0, 6).equals(MULTIHASH_HEAD)
  return isEd25519 ? multihash.subarray(6) : null
}

/** The multihash (38 bytes) of a public key: its peer id in bytes. */
export const multihashOf = (publicKey) => Buffer.concat([MULTIHASH_HEAD, publicKey])

/** The private key of a seed of 32 bytes, with its peer id. */
export function privateKeyOf (seed) {
  const key = createPrivateKey({ key: Buffer.concat([PRIVATE_DER, seed]), format: 'der', type: 'pkcs8' })
  const publicKey = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(PUBLIC_DER.length)
  return { key, publicKey, peerId: base58btc.baseEncode(multihashOf(publicKey)) }
}

export const sign = (privateKey, message) => cryptoSign(null, message, privateKey.key)

/** Whether the peer signed exactly these bytes. OpenSSL checks the signature; that it is canonical too. */
export function verify (peerId, message, signature) {
  const publicKey = publicKeyOf(peerId)
  if (publicKey === null || signature.length !== 64) return false
  if (!isPointOfFullOrder(publicKey) || !isPointOfFullOrder(signature.subarray(0, 32))) return false
  const key = createPublicKey({ key: Buffer.concat([PUBLIC_DER, publicKey]), format: 'der', type: 'spki' })
  return cryptoVerify(null, message, key, signature)
}

function isPointOfFullOrder (point) {
  const y = BigInt('0x' + Buffer.from(point).reverse().toString('hex')) & ((1n << 255n) - 1n)
  return y < P && !SMALL_ORDER.has(y)
}
