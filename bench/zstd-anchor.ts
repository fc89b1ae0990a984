/**
 * zstd level 1 as an anchor: the system's library, in memory, one thread, in CPU time of that thread.
 */
import { spawnSync } from "node:child_process";

/** Calls the library's one-shot functions; CPU time of a thread does not count what else the machine does. */
const SCRIPT = `
import ctypes, ctypes.util, sys, time
z = ctypes.CDLL(ctypes.util.find_library("zstd") or "libzstd.so.1")
for name in ("ZSTD_compressBound", "ZSTD_compress", "ZSTD_decompress"):
    getattr(z, name).restype = ctypes.c_size_t
data = open(sys.argv[1], "rb").read()
room = z.ZSTD_compressBound(ctypes.c_size_t(len(data)))
packed, plain = ctypes.create_string_buffer(room), ctypes.create_string_buffer(len(data))
best = [1e9, 1e9]
for _ in range(int(sys.argv[2])):
    start = time.thread_time()
    size = z.ZSTD_compress(packed, ctypes.c_size_t(room), data, ctypes.c_size_t(len(data)), 1)
    middle = time.thread_time()
    z.ZSTD_decompress(plain, ctypes.c_size_t(len(data)), packed, ctypes.c_size_t(size))
    end = time.thread_time()
    best = [min(best[0], middle - start), min(best[1], end - middle)]
assert plain.raw == data
print(*best)
`;

/**
 * CPU seconds that zstd -1 takes for the bytes of a file, the best of a few rounds.
 *
 * @returns nothing where there is no Python or no libzstd.
 */
export function zstdSeconds(file: string, rounds = 3): { readonly encode: number; readonly decode: number } | undefined {
  const { stdout, status } = spawnSync("python3", ["-c", SCRIPT, file, String(rounds)], { encoding: "utf8" });
  if (status !== 0) return undefined;
  const [encode, decode] = stdout.trim().split(" ").map(Number);
  return { encode: encode!, decode: decode! };
}
