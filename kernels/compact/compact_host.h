/* The self-test of compact.c: reading a tensor of compact_selftest.h, comparing. C99. */
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
#include "sha256.h"

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
    bw_sha256(out, test->shape.bytes, text);
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
