// Prints a signed envelope in hex, the first version of an address.
//
//   node seal.mjs SEED_IN_HEX ADDRESS CONTENT
import { seal } from './envelope.mjs'

const [seed, address, content] = process.argv.slice(2)
const version = BigInt(Date.now()) << 16n
const envelope = seal(Buffer.from(seed, 'hex'), { address, content: Buffer.from(content), contentType: 'text/plain', version })
process.stdout.write(envelope.toString('hex') + '\n')
