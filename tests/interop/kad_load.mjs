// Closed load on a js-libp2p node: a number of callers, each with one call after the other; rates and latencies.
import { performance } from 'node:perf_hooks'

/**
 * `callers` callers for `seconds`, or until `most` calls were made. `what` is 'put' or 'get'; keys are numbered from 0 by
 * `run`, and a get takes one of the first `count` of them in turn. A put is good when `copies` peers echoed its value, a
 * get when it ends with a value.
 */
export async function load (kad, { what, run, callers, seconds, most, count, copies, sizeBytes }) {
  const latencies = []
  let started = 0
  let bad = 0
  let failed = 0
  const one = what === 'put'
    ? async (number) => (await put(kad, keyOf(run, number), valueOf(number, sizeBytes))) >= copies
    : async (number) => await get(kad, keyOf(run, number % count))

  async function caller () {
    while (performance.now() < until && started < most) {
      const number = started++
      const from = performance.now()
      try {
        if (await one(number)) latencies.push(performance.now() - from)
        else bad++
      } catch {
        failed++
      }
    }
  }

  const from = performance.now()
  const until = from + seconds * 1000
  await Promise.all(Array.from({ length: callers }, caller))
  const passed = (performance.now() - from) / 1000
  latencies.sort((one, other) => one - other)
  const percentile = (share) => latencies[Math.max(0, Math.ceil(share * latencies.length) - 1)] ?? null
  return {
    rate: latencies.length / passed, p50_ms: percentile(0.5), p95_ms: percentile(0.95),
    good: latencies.length, not_as_asked: bad, failed
  }
}

const keyOf = (run, number) => Buffer.from(`/ucxl/${run}-${number}`)

function valueOf (number, sizeBytes) {
  const value = Buffer.alloc(sizeBytes)
  value.write(String(number))
  return value
}

/** The number of peers that echoed the value. */
async function put (kad, key, value) {
  let echoes = 0
  for await (const event of kad.put(key, value, { signal: AbortSignal.timeout(20000) })) {
    if (event.name === 'PEER_RESPONSE' && event.record != null && value.equals(event.record.value)) echoes++
  }
  return echoes
}

/** Whether the query ended with a value: the best of those that all holders gave. */
async function get (kad, key) {
  let value = null
  for await (const event of kad.get(key, { signal: AbortSignal.timeout(20000) })) {
    if (event.name === 'VALUE') value = event.value
  }
  return value !== null
}
