/* DFloat11 units to bf16 in plain C99, without dependencies.
 *
 * A unit is six arrays, as they lie in the safetensors file. df11_decode checks
 * every length and index it uses: damaged input gives an error, never a read or
 * write out of bounds. Blocks are independent: df11_decode_block may run for
 * different blocks in different threads.
 *
 *   cc -O2 -c df11.c                                      the decoder alone
 *   cc -O2 -DDF11_SELFTEST df11.c -o selftest && ./selftest ..
 *                                                         decodes a unit of the artifact in .. and compares its SHA-256
 *
 * Bit order: most significant bit first. Numbers: little-endian.
 */
#include <stddef.h>
#include <stdint.h>

#define DF11_BLOCK_BYTES 4096u
#define DF11_THREADS 512u
#define DF11_FIRST_POINTER 240u

typedef struct {
  const uint8_t *luts; /* rows * 256 bytes: decode rows, then code lengths by exponent */
  size_t luts_bytes;
  const uint8_t *encoded_exponent;
  size_t encoded_bytes;
  const uint8_t *sign_mantissa; /* one byte a weight */
  size_t elements;
  const uint8_t *output_positions; /* blocks + 1 numbers of 32 bits */
  size_t positions_bytes;
  const uint8_t *gaps; /* 512 fields of 5 bits a block */
  size_t gaps_bytes;
} df11_unit;

enum df11_status {
  DF11_OK = 0,
  DF11_BAD_TABLE = -1,    /* luts: size, pointers or lengths */
  DF11_BAD_INDEX = -2,    /* output_positions or gaps */
  DF11_BAD_STREAM = -3    /* the stream ends early, or holds a code without meaning */
};

static uint32_t df11_position(const df11_unit *unit, size_t block) {
  const uint8_t *p = unit->output_positions + 4 * block;
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Bit, inside its 64-bit window, of the first code that starts there. */
static unsigned df11_gap(const df11_unit *unit, size_t window) {
  size_t bit = 5 * window;
  size_t at = bit / 8;
  unsigned pair = (unsigned)unit->gaps[at] << 8;
  if (at + 1 < unit->gaps_bytes) pair |= unit->gaps[at + 1];
  return (pair >> (11 - bit % 8)) & 31u;
}

/* Eight bits from bit `at`; zeros behind the end. */
static unsigned df11_byte_at(const df11_unit *unit, uint64_t at) {
  size_t index = (size_t)(at / 8);
  unsigned pair = 0;
  if (index < unit->encoded_bytes) pair = (unsigned)unit->encoded_exponent[index] << 8;
  if (index + 1 < unit->encoded_bytes) pair |= unit->encoded_exponent[index + 1];
  return (pair >> (8 - at % 8)) & 255u;
}

size_t df11_blocks(const df11_unit *unit) {
  return unit->encoded_bytes / DF11_BLOCK_BYTES + (unit->encoded_bytes % DF11_BLOCK_BYTES != 0);
}

/* Everything that can be checked before the stream is read. */
int df11_check(const df11_unit *unit) {
  size_t rows = unit->luts_bytes / 256;
  size_t blocks = df11_blocks(unit);
  size_t i;
  const uint8_t *lengths;
  if (unit->luts_bytes % 256 != 0 || rows < 2 || rows > 18) return DF11_BAD_TABLE;
  lengths = unit->luts + (rows - 1) * 256;
  for (i = 0; i < (rows - 1) * 256; i++) {
    unsigned value = unit->luts[i];
    if (value >= DF11_FIRST_POINTER) {
      /* Pointers only lead down, so following them ends. */
      size_t target = 256u - value;
      if (target > rows - 2 || target <= i / 256) return DF11_BAD_TABLE;
    } else if (lengths[value] == 0) {
      return DF11_BAD_TABLE;
    }
  }
  for (i = 0; i < 256; i++) {
    if (lengths[i] > 32) return DF11_BAD_TABLE;
  }
  if (unit->positions_bytes / 4 != blocks + 1 || unit->positions_bytes % 4 != 0) return DF11_BAD_INDEX;
  if (unit->gaps_bytes != blocks * (DF11_THREADS * 5 / 8)) return DF11_BAD_INDEX;
  if (df11_position(unit, 0) != 0 || df11_position(unit, blocks) != unit->elements) return DF11_BAD_INDEX;
  for (i = 0; i < blocks; i++) {
    if (df11_position(unit, i) > df11_position(unit, i + 1)) return DF11_BAD_INDEX;
  }
  return DF11_OK;
}

/* Decodes the weights whose codes start in one block. The unit has passed df11_check; `out` has room for all elements. */
int df11_decode_block(const df11_unit *unit, size_t block, uint16_t *out) {
  const uint8_t *lengths = unit->luts + unit->luts_bytes - 256;
  size_t i = df11_position(unit, block);
  size_t end = df11_position(unit, block + 1);
  uint64_t at = (uint64_t)block * DF11_BLOCK_BYTES * 8 + df11_gap(unit, block * DF11_THREADS);
  uint64_t limit = (uint64_t)unit->encoded_bytes * 8;
  uint64_t last = ((uint64_t)block + 1) * DF11_BLOCK_BYTES * 8;
  if (last < limit) limit = last;
  for (; i < end; i++) {
    unsigned hop;
    unsigned value;
    unsigned sm = unit->sign_mantissa[i];
    if (at >= limit) return DF11_BAD_STREAM;
    value = unit->luts[df11_byte_at(unit, at)];
    for (hop = 1; value >= DF11_FIRST_POINTER; hop++) {
      if (hop > 3) return DF11_BAD_STREAM;
      value = unit->luts[(256u - value) * 256u + df11_byte_at(unit, at + 8u * hop)];
    }
    out[i] = (uint16_t)((sm & 0x80u) << 8 | value << 7 | (sm & 0x7fu));
    at += lengths[value];
  }
  return DF11_OK;
}

/* Decodes a unit to `elements` bf16 patterns. */
int df11_decode(const df11_unit *unit, uint16_t *out) {
  size_t block;
  size_t blocks = df11_blocks(unit);
  int status = df11_check(unit);
  for (block = 0; status == DF11_OK && block < blocks; block++) status = df11_decode_block(unit, block, out);
  return status;
}

#ifdef DF11_SELFTEST
#include "df11_host.h"

int main(int argc, char **argv) {
  df11_test_unit test = df11_read_unit(argc, argv);
  uint16_t *out;
  df11_unit unit;
  int status, wrong = 1;
  unit.luts = test.bytes[DF11_LUTS];
  unit.luts_bytes = test.size[DF11_LUTS];
  unit.encoded_exponent = test.bytes[DF11_STREAM];
  unit.encoded_bytes = test.size[DF11_STREAM];
  unit.sign_mantissa = test.bytes[DF11_SIGN_MANTISSA];
  unit.elements = test.size[DF11_SIGN_MANTISSA];
  unit.output_positions = test.bytes[DF11_POSITIONS];
  unit.positions_bytes = test.size[DF11_POSITIONS];
  unit.gaps = test.bytes[DF11_GAPS];
  unit.gaps_bytes = test.size[DF11_GAPS];
  out = (uint16_t *)df11_room(2 * unit.elements);
  status = df11_decode(&unit, out);
  if (status != DF11_OK) printf("unit %s does not decode: %d\n", DF11_TEST_UNIT, status);
  else wrong = df11_compare(out);
  if (!wrong) printf("ok: unit %s, %lu weights, every sha256 as stored\n", DF11_TEST_UNIT, (unsigned long)unit.elements);
  free(out);
  df11_free_unit(&test);
  return wrong != 0;
}
#endif
