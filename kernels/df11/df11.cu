/* DFloat11 units to bf16 on NVIDIA GPUs, with the geometry of the format: one thread a window of 8 bytes, 512 threads a block of 4096.
 *
 *   nvcc -O3 -o selftest df11.cu && ./selftest ..         decodes a unit of the artifact in .., compares its SHA-256, prints GB/s
 *   c++ -O2 -x c++ -o selftest df11.cu && ./selftest ..   the same steps, one thread after another, on the CPU: for machines without a GPU
 *
 * For a program of your own: df11_decode_kernel<<<dim3(blocks, 1), 512, df11_staging_bytes(...)>>>(unit). Check the unit first: the kernel
 * never leaves the arrays, whatever they hold, but damaged ones give wrong weights or a non-zero *status. What they hold is told by
 * checksums only.
 *
 * A block decodes in steps with a barrier between them:
 *   count   each thread counts the codes that start in its window, from the gap on;
 *   scan    nine steps turn counts into places;
 *   write   each thread decodes its window again and puts weights into a staging buffer in shared memory;
 *   copy    the block copies the buffer to its place in the output.
 *
 * Bit order: most significant bit first. Numbers: little-endian.
 */
#include <stdint.h>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define DF11_DEVICE __device__ __forceinline__
#else
#include <vector>
#define DF11_DEVICE inline
#endif

#define DF11_BLOCK_BYTES 4096u
#define DF11_THREADS 512u
#define DF11_WINDOW_BITS 64u
#define DF11_FIRST_POINTER 240u
#define DF11_SCAN_STEPS 9
#define DF11_STEPS (DF11_SCAN_STEPS + 4)
#define DF11_TABLE_BYTES (18u * 256u)
/* What is left of the 48 KiB that every GPU gives a block without being asked: tables, two rows of counters. */
#define DF11_MAX_STAGED ((48u * 1024u - DF11_TABLE_BYTES - 2u * 4u * DF11_THREADS - 256u) / 2u)

/* A unit in the memory of the device. */
struct df11_gpu_unit {
  const uint8_t *luts; /* rows * 256 bytes: decode rows, then code lengths by exponent */
  const uint8_t *encoded_exponent;
  const uint8_t *sign_mantissa;
  const uint32_t *output_positions; /* blocks + 1 */
  const uint8_t *gaps;              /* 320 * blocks bytes */
  uint16_t *out;                    /* elements */
  uint32_t *status;                 /* 0 before; 1 afterwards when a code has no meaning, 2 when counts disagree with output_positions */
  uint32_t rows;                    /* of luts, 2 to 18 */
  uint32_t encoded_bytes;
  uint32_t elements;
};

/* Memory of one block. */
struct df11_shared {
  uint8_t tables[DF11_TABLE_BYTES];
  uint32_t sums[2][DF11_THREADS];
};

/* Registers of one thread that live from step to step. */
struct df11_thread {
  uint32_t words[3]; /* 8 bytes of its own and 4 behind them, for the code that starts last */
  uint32_t gap;
  uint32_t limit; /* first bit of the window where no code may start */
  uint32_t count;
};

/* `symbol`: exponent; returns the length of the code whose bits lie highest in `bits`, 0 when it has no meaning. */
DF11_DEVICE uint32_t df11_code(const uint8_t *tables, uint32_t rows, uint32_t bits, uint32_t *symbol) {
  uint32_t value = tables[bits >> 24];
  int shift = 16;
  while (value >= DF11_FIRST_POINTER) {
    uint32_t row = 256u - value;
    if (row > rows - 2u || shift < 0) return 0;
    value = tables[row * 256u + ((bits >> shift) & 255u)];
    shift -= 8;
  }
  *symbol = value;
  return tables[(rows - 1u) * 256u + value];
}

/* 32 bits of the window from bit `at`, which is below 64. */
DF11_DEVICE uint32_t df11_peek(const df11_thread &thread, uint32_t at) {
  uint64_t pair = at < 32u ? ((uint64_t)thread.words[0] << 32 | thread.words[1]) : ((uint64_t)thread.words[1] << 32 | thread.words[2]);
  return (uint32_t)(pair >> (32u - (at & 31u)));
}

/* Bytes at `at` as a big-endian word; zeros behind the end. */
DF11_DEVICE uint32_t df11_word(const df11_gpu_unit &unit, uint64_t at) {
  uint32_t word = 0;
  const uint8_t *place = unit.encoded_exponent + at;
  if (((uintptr_t)place & 3u) == 0u && at + 4u <= unit.encoded_bytes) {
    word = *(const uint32_t *)(const void *)place;
    return word << 24 | (word & 0xff00u) << 8 | (word >> 8 & 0xff00u) | word >> 24;
  }
  for (uint32_t i = 0; i < 4u; i++) word = word << 8 | (at + i < unit.encoded_bytes ? unit.encoded_exponent[at + i] : 0u);
  return word;
}

DF11_DEVICE void df11_flag(const df11_gpu_unit &unit, uint32_t flag) {
#ifdef __CUDACC__
  atomicOr(unit.status, flag);
#else
  *unit.status |= flag;
#endif
}

/* Elements of a block, and none behind the unit's end whatever output_positions say. */
DF11_DEVICE void df11_range(const df11_gpu_unit &unit, uint32_t block, uint32_t *from, uint32_t *to) {
  uint32_t last = unit.output_positions[block + 1u];
  *to = last < unit.elements ? last : unit.elements;
  *from = unit.output_positions[block] < *to ? unit.output_positions[block] : *to;
}

DF11_DEVICE void df11_count(const df11_gpu_unit &unit, uint32_t block, uint32_t index, df11_thread &thread, df11_shared &shared) {
  uint64_t at = (uint64_t)block * DF11_BLOCK_BYTES + 8u * index;
  uint32_t field = 5u * index;
  const uint8_t *gaps = unit.gaps + 320u * (uint64_t)block + field / 8u;
  /* Five bits of two bytes; the field that ends a block has none behind it. */
  uint32_t pair = (uint32_t)gaps[0] << 8 | (field % 8u > 3u ? gaps[1] : 0u);
  uint32_t symbol = 0;
  thread.gap = (pair >> (11u - field % 8u)) & 31u;
  for (uint32_t i = 0; i < 3u; i++) thread.words[i] = df11_word(unit, at + 4u * i);
  thread.limit = 0;
  if (at < unit.encoded_bytes) {
    uint64_t left = unit.encoded_bytes - at;
    thread.limit = left < 8u ? (uint32_t)left * 8u : DF11_WINDOW_BITS;
  }
  thread.count = 0;
  for (uint32_t bit = thread.gap; bit < thread.limit; thread.count++) {
    uint32_t length = df11_code(shared.tables, unit.rows, df11_peek(thread, bit), &symbol);
    if (length == 0u) {
      df11_flag(unit, 1u);
      break;
    }
    bit += length;
  }
  shared.sums[0][index] = thread.count;
}

DF11_DEVICE void df11_scan(int step, uint32_t index, df11_shared &shared) {
  const uint32_t *from = shared.sums[step & 1];
  uint32_t reach = 1u << step;
  shared.sums[(step & 1) ^ 1][index] = from[index] + (index >= reach ? from[index - reach] : 0u);
}

DF11_DEVICE void df11_write(const df11_gpu_unit &unit, uint32_t block, uint32_t index, const df11_thread &thread, const df11_shared &shared,
                            uint16_t *staging, uint32_t staged) {
  uint32_t from, to, symbol = 0, bit = thread.gap;
  const uint32_t *sums = shared.sums[DF11_SCAN_STEPS & 1];
  df11_range(unit, block, &from, &to);
  uint32_t start = from + sums[index] - thread.count;
  /* Padding behind the last code may count as codes: only the last element's block may have more than it should. */
  if (index == 0u && (to == unit.elements ? sums[DF11_THREADS - 1u] < to - from : sums[DF11_THREADS - 1u] != to - from)) df11_flag(unit, 2u);
  uint16_t *out = to - from <= staged ? staging : unit.out + from;
  for (uint32_t i = start; i < start + thread.count && i < to; i++) {
    uint32_t sm = unit.sign_mantissa[i];
    bit += df11_code(shared.tables, unit.rows, df11_peek(thread, bit), &symbol);
    out[i - from] = (uint16_t)((sm & 0x80u) << 8 | symbol << 7 | (sm & 0x7fu));
  }
}

DF11_DEVICE void df11_copy(const df11_gpu_unit &unit, uint32_t block, uint32_t index, const uint16_t *staging, uint32_t staged) {
  uint32_t from, to;
  df11_range(unit, block, &from, &to);
  if (to - from > staged) return;
  for (uint32_t i = index; i < to - from; i += DF11_THREADS) unit.out[from + i] = staging[i];
}

/* One step of one thread; a barrier follows it. `staged`: how many elements the staging buffer holds. */
DF11_DEVICE void df11_step(int step, const df11_gpu_unit &unit, uint32_t block, uint32_t index, df11_thread &thread, df11_shared &shared,
                           uint16_t *staging, uint32_t staged) {
  if (step == 0) {
    for (uint32_t i = index; i < unit.rows * 256u; i += DF11_THREADS) shared.tables[i] = unit.luts[i];
  } else if (step == 1) {
    df11_count(unit, block, index, thread, shared);
  } else if (step < 2 + DF11_SCAN_STEPS) {
    df11_scan(step - 2, index, shared);
  } else if (step == 2 + DF11_SCAN_STEPS) {
    df11_write(unit, block, index, thread, shared, staging, staged);
  } else {
    df11_copy(unit, block, index, staging, staged);
  }
}

/* Elements the staging buffer must hold: those of the fullest block, or 0 when that does not fit, and blocks write to the output themselves. */
static inline uint32_t df11_staged_elements(const uint32_t *output_positions, uint32_t blocks) {
  uint32_t most = 0;
  for (uint32_t block = 0; block < blocks; block++) {
    uint32_t count = output_positions[block + 1u] - output_positions[block];
    if (count > most) most = count;
  }
  return most <= DF11_MAX_STAGED ? most : 0u;
}

#ifdef __CUDACC__
/* Grid: x blocks of the stream; y units, side by side in memory. Threads: 512. Dynamic shared memory: 2 * staged bytes. */
__global__ void __launch_bounds__(512) df11_decode_kernel(const df11_gpu_unit *units, uint32_t staged) {
  __shared__ df11_shared shared;
  extern __shared__ uint16_t df11_staging[];
  const df11_gpu_unit unit = units[blockIdx.y];
  df11_thread thread;
#pragma unroll
  for (int step = 0; step < DF11_STEPS; step++) {
    df11_step(step, unit, blockIdx.x, threadIdx.x, thread, shared, df11_staging, staged);
    __syncthreads();
  }
}
#else
/* The kernel on the CPU: every thread takes a step before any takes the next one. */
static void df11_decode_on_cpu(const df11_gpu_unit &unit, uint32_t blocks, uint32_t staged) {
  std::vector<df11_thread> threads(DF11_THREADS);
  std::vector<uint16_t> staging(staged);
  std::vector<df11_shared> shared(1);
  for (uint32_t block = 0; block < blocks; block++) {
    for (int step = 0; step < DF11_STEPS; step++) {
      for (uint32_t index = 0; index < DF11_THREADS; index++) {
        df11_step(step, unit, block, index, threads[index], shared[0], staging.data(), staged);
      }
    }
  }
}
#endif

#ifndef DF11_NO_MAIN
#include "df11_host.h"

/* What can be checked before the stream is read; 0 when it can be decoded. */
static const char *df11_problem(const df11_test_unit &test, uint32_t blocks) {
  const uint32_t *positions = (const uint32_t *)(const void *)test.bytes[DF11_POSITIONS];
  if (test.size[DF11_LUTS] % 256u != 0 || test.size[DF11_LUTS] < 512u || test.size[DF11_LUTS] > DF11_TABLE_BYTES) return "luts must have 2 to 18 rows";
  if (test.size[DF11_STREAM] >= 1ull << 31 || test.size[DF11_SIGN_MANTISSA] >= 1ull << 31) return "too large";
  if (test.size[DF11_POSITIONS] != 4u * ((size_t)blocks + 1u) || test.size[DF11_GAPS] != 320u * (size_t)blocks) return "index does not fit the stream";
  if (positions[0] != 0 || positions[blocks] != test.size[DF11_SIGN_MANTISSA]) return "output_positions do not fit sign_mantissa";
  for (uint32_t block = 0; block < blocks; block++) {
    if (positions[block] > positions[block + 1u]) return "output_positions go back";
  }
  return NULL;
}

static int df11_report(uint32_t status, const uint16_t *patterns) {
  if (status != 0) {
    printf("unit %s does not decode: status %u\n", DF11_TEST_UNIT, (unsigned)status);
    return 1;
  }
  return df11_compare(patterns);
}

#ifdef __CUDACC__
static void df11_must(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  exit(2);
}

static void *df11_device_room(size_t size) {
  void *room = NULL;
  df11_must(cudaMalloc(&room, size == 0 ? 1 : size), "cudaMalloc");
  return room;
}

/* Copies of an array, one behind the other at multiples of 256 bytes. */
static uint8_t *df11_upload(const uint8_t *bytes, size_t size, size_t stride, uint32_t copies) {
  uint8_t *room = (uint8_t *)df11_device_room(stride * copies);
  for (uint32_t i = 0; i < copies; i++) df11_must(cudaMemcpy(room + i * stride, bytes, size, cudaMemcpyHostToDevice), "upload");
  return room;
}

static size_t df11_stride(size_t size) { return (size + 255u) / 256u * 256u; }

static float df11_milliseconds(cudaEvent_t from, cudaEvent_t to) {
  float milliseconds = 0;
  df11_must(cudaEventSynchronize(to), "wait");
  df11_must(cudaEventElapsedTime(&milliseconds, from, to), "time");
  return milliseconds;
}

/* Decodes the unit, and many copies of it at once for a time that means something: a self-test's unit is small. */
static int df11_test(const df11_test_unit &test, uint32_t blocks, uint32_t staged) {
  const size_t bytes = 2u * test.size[DF11_SIGN_MANTISSA];
  const int rounds = 20;
  uint32_t copies = (uint32_t)((256u << 20) / (bytes + 1u)) + 1u;
  if (copies > 65535u) copies = 65535u;
  uint8_t *device[5];
  size_t stride[5];
  for (int i = 0; i < 5; i++) {
    stride[i] = df11_stride(test.size[i]);
    device[i] = df11_upload(test.bytes[i], test.size[i], stride[i], copies);
  }
  const size_t out_stride = df11_stride(bytes);
  uint8_t *out = (uint8_t *)df11_device_room(out_stride * copies);
  uint8_t *copy = (uint8_t *)df11_device_room(out_stride * copies);
  uint32_t *status = (uint32_t *)df11_device_room(sizeof *status);
  df11_must(cudaMemset(status, 0, sizeof *status), "clear");
  df11_must(cudaMemset(out, 0xff, out_stride * copies), "clear");
  df11_gpu_unit *units = (df11_gpu_unit *)df11_room(copies * sizeof *units);
  for (uint32_t i = 0; i < copies; i++) {
    units[i].luts = device[DF11_LUTS] + i * stride[DF11_LUTS];
    units[i].encoded_exponent = device[DF11_STREAM] + i * stride[DF11_STREAM];
    units[i].sign_mantissa = device[DF11_SIGN_MANTISSA] + i * stride[DF11_SIGN_MANTISSA];
    units[i].output_positions = (const uint32_t *)(const void *)(device[DF11_POSITIONS] + i * stride[DF11_POSITIONS]);
    units[i].gaps = device[DF11_GAPS] + i * stride[DF11_GAPS];
    units[i].out = (uint16_t *)(void *)(out + i * out_stride);
    units[i].status = status;
    units[i].rows = (uint32_t)(test.size[DF11_LUTS] / 256u);
    units[i].encoded_bytes = (uint32_t)test.size[DF11_STREAM];
    units[i].elements = (uint32_t)test.size[DF11_SIGN_MANTISSA];
  }
  df11_gpu_unit *device_units = (df11_gpu_unit *)df11_device_room(copies * sizeof *units);
  df11_must(cudaMemcpy(device_units, units, copies * sizeof *units, cudaMemcpyHostToDevice), "upload");

  cudaEvent_t marks[4];
  for (int i = 0; i < 4; i++) df11_must(cudaEventCreate(&marks[i]), "event");
  for (int round = -1; round < rounds; round++) {
    if (round == 0) df11_must(cudaEventRecord(marks[0]), "event");
    df11_decode_kernel<<<dim3(blocks, copies), DF11_THREADS, 2u * staged>>>(device_units, staged);
    df11_must(cudaGetLastError(), "launch");
  }
  df11_must(cudaEventRecord(marks[1]), "event");
  for (int round = -1; round < rounds; round++) {
    if (round == 0) df11_must(cudaEventRecord(marks[2]), "event");
    df11_must(cudaMemcpyAsync(copy, out, out_stride * copies, cudaMemcpyDeviceToDevice), "copy");
  }
  df11_must(cudaEventRecord(marks[3]), "event");
  df11_must(cudaDeviceSynchronize(), "decode");
  const double decode = df11_milliseconds(marks[0], marks[1]) / rounds, copied = df11_milliseconds(marks[2], marks[3]) / rounds;

  uint32_t found = 0;
  uint16_t *patterns = (uint16_t *)df11_room(bytes);
  df11_must(cudaMemcpy(&found, status, sizeof found, cudaMemcpyDeviceToHost), "download");
  df11_must(cudaMemcpy(patterns, out, bytes, cudaMemcpyDeviceToHost), "download");
  int wrong = df11_report(found, patterns);
  df11_must(cudaMemcpy(patterns, out + (copies - 1u) * out_stride, bytes, cudaMemcpyDeviceToHost), "download");
  if (wrong == 0) wrong = df11_report(found, patterns);
  if (wrong == 0) {
    printf("%u copies at once, GB/s of bf16: decode %.1f, device copy %.1f\n", (unsigned)copies, (double)bytes * copies / decode / 1e6,
           (double)out_stride * copies / copied / 1e6);
  }
  for (int i = 0; i < 4; i++) df11_must(cudaEventDestroy(marks[i]), "event");
  for (int i = 0; i < 5; i++) df11_must(cudaFree(device[i]), "free");
  df11_must(cudaFree(out), "free");
  df11_must(cudaFree(copy), "free");
  df11_must(cudaFree(status), "free");
  df11_must(cudaFree(device_units), "free");
  free(units);
  free(patterns);
  return wrong;
}
#else
static int df11_test(const df11_test_unit &test, uint32_t blocks, uint32_t staged) {
  std::vector<uint16_t> out(test.size[DF11_SIGN_MANTISSA]);
  uint32_t status = 0;
  const df11_gpu_unit unit = {test.bytes[DF11_LUTS],
                              test.bytes[DF11_STREAM],
                              test.bytes[DF11_SIGN_MANTISSA],
                              (const uint32_t *)(const void *)test.bytes[DF11_POSITIONS],
                              test.bytes[DF11_GAPS],
                              out.data(),
                              &status,
                              (uint32_t)(test.size[DF11_LUTS] / 256u),
                              (uint32_t)test.size[DF11_STREAM],
                              (uint32_t)out.size()};
  df11_decode_on_cpu(unit, blocks, staged);
  return df11_report(status, out.data());
}
#endif

int main(int argc, char **argv) {
  df11_test_unit test = df11_read_unit(argc, argv);
  const uint32_t blocks = (uint32_t)((test.size[DF11_STREAM] + DF11_BLOCK_BYTES - 1u) / DF11_BLOCK_BYTES);
  const char *problem = df11_problem(test, blocks);
  int wrong = 1;
  if (problem != NULL) {
    printf("unit %s: %s\n", DF11_TEST_UNIT, problem);
  } else {
    const uint32_t *positions = (const uint32_t *)(const void *)test.bytes[DF11_POSITIONS];
    wrong = df11_test(test, blocks, df11_staged_elements(positions, blocks));
  }
  if (wrong == 0) printf("ok: unit %s, %lu weights, every sha256 as stored\n", DF11_TEST_UNIT, (unsigned long)test.size[DF11_SIGN_MANTISSA]);
  df11_free_unit(&test);
  return wrong != 0;
}
#endif
