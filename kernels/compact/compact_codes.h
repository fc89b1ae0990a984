/* Codes and the tables that decode them, bits, numbers, the checksum. C99; included by compact.c. */
#ifndef COMPACT_CODES_H
#define COMPACT_CODES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TABLE_SIZE = 4096, TABLE_BITS = 12 };

typedef struct {
  uint16_t frequency[256];
  uint16_t start[256];
  uint8_t by_slot[TABLE_SIZE];
  uint16_t by_bits[TABLE_SIZE]; /* symbol << 8 | length */
} compact_table;

static uint32_t compact_u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t compact_u32(const uint8_t *p) { return compact_u16(p) | compact_u16(p + 2) << 16; }
static uint64_t compact_u64(const uint8_t *p) { return (uint64_t)compact_u32(p) | (uint64_t)compact_u32(p + 4) << 32; }
static size_t compact_min(size_t a, size_t b) { return a < b ? a : b; }
static size_t compact_words(size_t bytes) { return (bytes + 3) / 4 * 4; }
static uint32_t compact_rotate(uint32_t x) { return x << 13 | x >> 19; }

static uint32_t compact_checksum(const uint8_t *bytes, size_t size) {
  uint32_t lane[16];
  uint32_t h = (uint32_t)size;
  size_t at;
  unsigned j;
  for (j = 0; j < 16; j++) lane[j] = j;
  for (at = 0; at < size; at += 64) {
    uint8_t stripe[64] = {0};
    memcpy(stripe, bytes + at, compact_min(64, size - at));
    for (j = 0; j < 16; j++) lane[j] = compact_rotate((lane[j] + compact_u32(stripe + 4 * j)) * 0x9e3779b1u);
  }
  for (j = 0; j < 16; j++) h = compact_rotate((h + lane[j]) * 0x9e3779b1u);
  h = (h ^ h >> 15) * 0x85ebca77u;
  h = (h ^ h >> 13) * 0xc2b2ae3du;
  return h ^ h >> 16;
}

/* Canonical codes, first bit lowest. Returns whether the lengths make a complete code. */
static int compact_codes(const uint8_t *length, size_t symbols, uint16_t by_bits[TABLE_SIZE]) {
  uint32_t code = 0, space = 0;
  unsigned bits, bit;
  size_t s;
  for (s = 0; s < symbols; s++) {
    if (length[s] > TABLE_BITS) return 0;
    if (length[s] > 0) space += (uint32_t)TABLE_SIZE >> length[s];
  }
  if (space != TABLE_SIZE) return 0;
  for (bits = 1; bits <= TABLE_BITS; bits++) {
    code <<= 1;
    for (s = 0; s < symbols; s++) {
      uint32_t reversed = 0, rest;
      if (length[s] != bits) continue;
      for (bit = 0; bit < bits; bit++) reversed |= (code >> bit & 1u) << (bits - 1 - bit);
      for (rest = reversed; rest < TABLE_SIZE; rest += 1u << bits) by_bits[rest] = (uint16_t)(s << 8 | bits);
      code++;
    }
  }
  return 1;
}

/* Lengths of at most twelve bits with the least total: package-merge; symbols go before packages of the same weight. */
static void compact_limited(const uint16_t *frequency, uint8_t length[256]) {
  uint32_t list[512], next[512];
  uint8_t is_leaf[TABLE_BITS][512];
  unsigned order[256];
  size_t count = 0, size, i, level, taken;
  for (i = 0; i < 256; i++) {
    size_t at;
    length[i] = 0;
    if (frequency[i] == 0) continue;
    for (at = count; at > 0 && frequency[order[at - 1]] > frequency[i]; at--) order[at] = order[at - 1];
    order[at] = (unsigned)i;
    count++;
  }
  for (i = 0; i < count; i++) {
    list[i] = frequency[order[i]];
    is_leaf[0][i] = 1;
  }
  size = count;
  for (level = 1; level < TABLE_BITS; level++) {
    size_t leaf = 0, pair = 0, pairs = size / 2;
    for (i = 0; leaf < count || pair < pairs; i++) {
      uint32_t package = pair < pairs ? list[2 * pair] + list[2 * pair + 1] : 0;
      int take_leaf = leaf < count && (pair >= pairs || frequency[order[leaf]] <= package);
      is_leaf[level][i] = (uint8_t)take_leaf;
      next[i] = take_leaf ? frequency[order[leaf]] : package;
      if (take_leaf) leaf++;
      else pair++;
    }
    size = i;
    memcpy(list, next, size * sizeof *list);
  }
  taken = count < 2 ? 0 : 2 * count - 2;
  for (level = TABLE_BITS; level-- > 0;) {
    size_t leaves = 0;
    for (i = 0; i < taken; i++) leaves += is_leaf[level][i];
    for (i = 0; i < leaves; i++) length[order[i]]++;
    taken = 2 * (taken - leaves);
  }
}

static int compact_build(compact_table *table, const uint16_t *frequency, const uint8_t *lengths, size_t symbols) {
  uint8_t own[256];
  size_t s;
  uint32_t at = 0;
  memset(table, 0, sizeof *table);
  for (s = 0; s < symbols; s++) {
    table->frequency[s] = frequency[s];
    table->start[s] = (uint16_t)at;
    if (at + frequency[s] > TABLE_SIZE) return 0;
    memset(table->by_slot + at, (int)s, frequency[s]);
    at += frequency[s];
  }
  if (at != TABLE_SIZE) return 0;
  if (lengths == NULL) {
    compact_limited(table->frequency, own);
    lengths = own;
  }
  return compact_codes(lengths, symbols, table->by_bits);
}

/* Bits, least significant first. Past the end they are 0 and `at` says so. */
typedef struct {
  const uint8_t *bytes;
  size_t size;
  size_t at;
} compact_bits;

static uint32_t compact_peek(const compact_bits *bits) {
  uint32_t value = 0;
  size_t i = bits->at / 8;
  unsigned k;
  for (k = 0; k < 3; k++)
    if (i + k < bits->size) value |= (uint32_t)bits->bytes[i + k] << 8 * k;
  return value >> bits->at % 8;
}

static uint32_t compact_take(compact_bits *bits, unsigned count) {
  uint32_t value = compact_peek(bits) & ((1u << count) - 1);
  bits->at += count;
  return value;
}

#endif
