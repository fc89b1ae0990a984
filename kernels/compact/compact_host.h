/* The self-test of compact.c: SHA-256, reading a tensor of compact_selftest.h, comparing. C99. */
#ifndef COMPACT_HOST_H
#define COMPACT_HOST_H

#include <stdio.h>

typedef struct {
  const char *file;
  const char *tensor;
  compact_shape shape;
  long long offset; /* of the payload in the file */
  long long size;
  const char *sha256;
} compact_test;

/* Defines compact_tests. */
#include "compact_selftest.h"

static uint32_t compact_turn(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

/* SHA-256 (FIPS 180-4), as hexadecimal text. The constants are fractional parts of cube and square roots of the first primes. */
static void compact_sha256(const uint8_t *data, size_t size, char text[65]) {
  static const uint32_t k[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
      0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
      0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
      0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
      0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
      0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  size_t blocks = (size + 9 + 63) / 64, b;
  unsigned i;
  for (b = 0; b < blocks; b++) {
    uint8_t chunk[64] = {0};
    uint32_t w[64], v[8];
    size_t at = 64 * b;
    size_t held = at < size ? (size - at < 64 ? size - at : 64) : 0;
    if (held > 0) memcpy(chunk, data + at, held);
    if (b == size / 64) chunk[held] = 0x80;
    if (b + 1 == blocks)
      for (i = 0; i < 8; i++) chunk[56 + i] = (uint8_t)((uint64_t)size * 8 >> (56 - 8 * i));
    for (i = 0; i < 16; i++)
      w[i] = (uint32_t)chunk[4 * i] << 24 | (uint32_t)chunk[4 * i + 1] << 16 | (uint32_t)chunk[4 * i + 2] << 8 | chunk[4 * i + 3];
    for (; i < 64; i++) {
      uint32_t s0 = compact_turn(w[i - 15], 7) ^ compact_turn(w[i - 15], 18) ^ w[i - 15] >> 3;
      uint32_t s1 = compact_turn(w[i - 2], 17) ^ compact_turn(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(v, h, sizeof v);
    for (i = 0; i < 64; i++) {
      uint32_t s1 = compact_turn(v[4], 6) ^ compact_turn(v[4], 11) ^ compact_turn(v[4], 25);
      uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
      uint32_t s0 = compact_turn(v[0], 2) ^ compact_turn(v[0], 13) ^ compact_turn(v[0], 22);
      uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      memmove(v + 1, v, 7 * sizeof *v);
      v[4] += t1;
      v[0] = t1 + t2;
    }
    for (i = 0; i < 8; i++) h[i] += v[i];
  }
  for (i = 0; i < 8; i++) snprintf(text + 8 * i, 9, "%08lx", (unsigned long)h[i]);
}

static void *compact_room(size_t size) {
  void *room = malloc(size == 0 ? 1 : size);
  if (room == NULL) {
    fprintf(stderr, "no memory for %lu bytes\n", (unsigned long)size);
    exit(2);
  }
  return room;
}

/* Returns whether the tensor is not what was stored. */
static int compact_run_test(int argc, char **argv, const compact_test *test) {
  char path[4096], text[65];
  size_t size = (size_t)test->size;
  uint8_t *payload, *out;
  FILE *file;
  int status;
  if (argc != 2) {
    fprintf(stderr, "usage: %s <artifact directory>\n", argv[0]);
    exit(2);
  }
  snprintf(path, sizeof path, "%s/%s", argv[1], test->file);
  file = fopen(path, "rb");
  if (file == NULL) {
    fprintf(stderr, "cannot open %s\n", path);
    exit(2);
  }
  /* Of exactly their sizes, so that a sanitizer sees a byte too many. */
  payload = (uint8_t *)compact_room(size);
  out = (uint8_t *)compact_room(test->shape.bytes);
  if (fseek(file, (long)test->offset, SEEK_SET) != 0 || fread(payload, 1, size, file) != size) {
    fprintf(stderr, "%s: cannot read %lu bytes at %lld\n", path, (unsigned long)size, test->offset);
    exit(2);
  }
  fclose(file);
  status = compact_decode(&test->shape, payload, size, out);
  if (status == COMPACT_OK) {
    compact_sha256(out, test->shape.bytes, text);
    if (strcmp(text, test->sha256) == 0) printf("ok: tensor %s, %lu bytes, sha256 as stored\n", test->tensor, (unsigned long)test->shape.bytes);
    else {
      printf("tensor %s: sha256 is %s, must be %s\n", test->tensor, text, test->sha256);
      status = COMPACT_BAD_CHECKSUM;
    }
  } else printf("tensor %s does not decode: %d\n", test->tensor, status);
  free(payload);
  free(out);
  return status != COMPACT_OK;
}

#endif
