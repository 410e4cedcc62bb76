// A js-libp2p node in a private network: private_peer.mjs KEY_FILE [MULTIADDR_TO_DIAL]. One line of JSON for what happens.
import './polyfill.mjs'
import { readFileSync } from 'node:fs'
import { noise } from '@libp2p/noise'
import { identify } from '@libp2p/identify'
import { preSharedKey } from '@libp2p/pnet'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const [keyFile, other] = process.argv.slice(2)
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  connectionProtector: preSharedKey({ psk: readFileSync(keyFile) }),
  streamMuxers: [yamux()],
  services: { identify: identify() },
  connectionGater: { denyDialMultiaddr: () => false }
})
node.addEventListener('peer:connect', ({ detail }) => say({ connected: detail.toString() }))
say({ peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
if (other) {
  await node.dial(multiaddr(other)).catch((error) => say({ failed: String(error) }))
}
