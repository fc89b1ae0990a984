/* What the self-tests of df11.c and df11.cu share: reading the unit of df11_selftest.h, comparing. C99 and C++. */
#ifndef DF11_HOST_H
#define DF11_HOST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Defines DF11_TEST_FILE, DF11_TEST_UNIT, five DF11_TEST_<ARRAY> pairs of offset and length, and df11_test_members. */
#include "df11_selftest.h"
#include "sha256.h"

/* The five arrays of the unit, each in memory of exactly its size, in the order of df11_test_ranges. */
typedef struct {
  uint8_t *bytes[5];
  size_t size[5];
} df11_test_unit;

enum { DF11_LUTS, DF11_STREAM, DF11_SIGN_MANTISSA, DF11_POSITIONS, DF11_GAPS };

static const long long df11_test_ranges[5][2] = {DF11_TEST_LUTS, DF11_TEST_ENCODED_EXPONENT, DF11_TEST_SIGN_MANTISSA, DF11_TEST_OUTPUT_POSITIONS,
                                                 DF11_TEST_GAPS};

/* Memory or the end of the program. */
static void *df11_room(size_t size) {
  void *room = malloc(size == 0 ? 1 : size);
  if (room == NULL) {
    fprintf(stderr, "no memory for %lu bytes\n", (unsigned long)size);
    exit(2);
  }
  return room;
}

/* Reads the unit from the artifact named on the command line; ends the program when that cannot be done. */
static df11_test_unit df11_read_unit(int argc, char **argv) {
  df11_test_unit unit;
  char path[4096];
  FILE *file;
  int i;
  if (argc != 2) {
    fprintf(stderr, "usage: %s <artifact directory>\n", argv[0]);
    exit(2);
  }
  snprintf(path, sizeof path, "%s/%s", argv[1], DF11_TEST_FILE);
  file = fopen(path, "rb");
  if (file == NULL) {
    fprintf(stderr, "cannot open %s\n", path);
    exit(2);
  }
  for (i = 0; i < 5; i++) {
    unit.size[i] = (size_t)df11_test_ranges[i][1];
    unit.bytes[i] = (uint8_t *)df11_room(unit.size[i]);
    if (fseek(file, (long)df11_test_ranges[i][0], SEEK_SET) != 0 || fread(unit.bytes[i], 1, unit.size[i], file) != unit.size[i]) {
      fprintf(stderr, "%s: cannot read %lu bytes at %lld\n", path, (unsigned long)unit.size[i], df11_test_ranges[i][0]);
      exit(2);
    }
  }
  fclose(file);
  return unit;
}

static void df11_free_unit(df11_test_unit *unit) {
  int i;
  for (i = 0; i < 5; i++) free(unit->bytes[i]);
}

/* Compares the SHA-256 of each tensor of the unit; says which are wrong and returns their number. */
static int df11_compare(const uint16_t *patterns) {
  size_t member, i, element = 0;
  int wrong = 0;
  for (member = 0; member < sizeof df11_test_members / sizeof *df11_test_members; member++) {
    size_t count = (size_t)df11_test_members[member].elements;
    uint8_t *little = (uint8_t *)df11_room(2 * count);
    char text[65];
    for (i = 0; i < count; i++) {
      little[2 * i] = (uint8_t)(patterns[element + i] & 255u);
      little[2 * i + 1] = (uint8_t)(patterns[element + i] >> 8);
    }
    bw_sha256(little, 2 * count, text);
    free(little);
    if (strcmp(text, df11_test_members[member].sha256) != 0) {
      printf("%s: sha256 is %s, must be %s\n", df11_test_members[member].name, text, df11_test_members[member].sha256);
      wrong++;
    }
    element += count;
  }
  return wrong;
}

#endif
