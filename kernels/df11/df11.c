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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Defines DF11_TEST_FILE, DF11_TEST_UNIT, the six DF11_TEST_<ARRAY> pairs of offset and length, and df11_test_members. */
#include "df11_selftest.h"

static uint32_t rotate(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

/* SHA-256 (FIPS 180-4). */
static void sha256(const uint8_t *data, size_t size, uint8_t digest[32]) {
  static const uint32_t k[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
      0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
      0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
      0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
      0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
      0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  size_t padded = (size + 9 + 63) / 64 * 64;
  size_t at;
  unsigned i;
  for (at = 0; at < padded; at += 64) {
    uint8_t chunk[64];
    uint32_t w[64];
    uint32_t v[8];
    for (i = 0; i < 64; i++) {
      size_t place = at + i;
      if (place < size) chunk[i] = data[place];
      else if (place == size) chunk[i] = 0x80;
      else if (place >= padded - 8) chunk[i] = (uint8_t)((uint64_t)size * 8 >> 8 * (padded - 1 - place));
      else chunk[i] = 0;
    }
    for (i = 0; i < 16; i++) {
      w[i] = (uint32_t)chunk[4 * i] << 24 | (uint32_t)chunk[4 * i + 1] << 16 | (uint32_t)chunk[4 * i + 2] << 8 | chunk[4 * i + 3];
    }
    for (; i < 64; i++) {
      uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
      uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(v, h, sizeof v);
    for (i = 0; i < 64; i++) {
      uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
      uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
      uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
      uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      memmove(v + 1, v, 7 * sizeof *v);
      v[4] += t1;
      v[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++) h[i] += v[i];
  }
  for (i = 0; i < 32; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static uint8_t *read_range(FILE *file, long long offset, size_t size) {
  uint8_t *bytes = malloc(size == 0 ? 1 : size);
  if (bytes == NULL || fseek(file, (long)offset, SEEK_SET) != 0 || fread(bytes, 1, size, file) != size) {
    fprintf(stderr, "cannot read %lu bytes at %lld\n", (unsigned long)size, offset);
    exit(2);
  }
  return bytes;
}

int main(int argc, char **argv) {
  static const long long ranges[5][2] = {DF11_TEST_LUTS, DF11_TEST_ENCODED_EXPONENT, DF11_TEST_SIGN_MANTISSA, DF11_TEST_OUTPUT_POSITIONS, DF11_TEST_GAPS};
  char path[4096];
  uint8_t *arrays[5];
  uint8_t *little;
  uint16_t *out;
  df11_unit unit;
  FILE *file;
  size_t i, element = 0, member;
  int status, wrong = 0;
  if (argc != 2) {
    fprintf(stderr, "usage: %s <artifact directory>\n", argv[0]);
    return 2;
  }
  snprintf(path, sizeof path, "%s/%s", argv[1], DF11_TEST_FILE);
  file = fopen(path, "rb");
  if (file == NULL) {
    fprintf(stderr, "cannot open %s\n", path);
    return 2;
  }
  for (i = 0; i < 5; i++) arrays[i] = read_range(file, ranges[i][0], (size_t)ranges[i][1]);
  fclose(file);
  unit.luts = arrays[0];
  unit.luts_bytes = (size_t)ranges[0][1];
  unit.encoded_exponent = arrays[1];
  unit.encoded_bytes = (size_t)ranges[1][1];
  unit.sign_mantissa = arrays[2];
  unit.elements = (size_t)ranges[2][1];
  unit.output_positions = arrays[3];
  unit.positions_bytes = (size_t)ranges[3][1];
  unit.gaps = arrays[4];
  unit.gaps_bytes = (size_t)ranges[4][1];
  out = malloc(2 * unit.elements + 1);
  little = malloc(2 * unit.elements + 1);
  if (out == NULL || little == NULL) return 2;
  status = df11_decode(&unit, out);
  if (status != DF11_OK) {
    printf("unit %s does not decode: %d\n", DF11_TEST_UNIT, status);
    return 1;
  }
  for (i = 0; i < unit.elements; i++) {
    little[2 * i] = (uint8_t)(out[i] & 255u);
    little[2 * i + 1] = (uint8_t)(out[i] >> 8);
  }
  for (member = 0; member < sizeof df11_test_members / sizeof *df11_test_members; member++) {
    uint8_t digest[32];
    char text[65];
    sha256(little + 2 * element, 2 * (size_t)df11_test_members[member].elements, digest);
    for (i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    if (strcmp(text, df11_test_members[member].sha256) != 0) {
      printf("%s: sha256 is %s, must be %s\n", df11_test_members[member].name, text, df11_test_members[member].sha256);
      wrong = 1;
    }
    element += (size_t)df11_test_members[member].elements;
  }
  if (!wrong) printf("ok: unit %s, %lu weights, every sha256 as stored\n", DF11_TEST_UNIT, (unsigned long)unit.elements);
  for (i = 0; i < 5; i++) free(arrays[i]);
  free(out);
  free(little);
  return wrong;
}
#endif
