/* One block of rows to its elements, at either level. C99; included by compact.c. */
#ifndef COMPACT_BLOCK_H
#define COMPACT_BLOCK_H

#include "compact_codes.h"

enum compact_kind { COMPACT_BF16, COMPACT_F16, COMPACT_BYTES };

enum { ESCAPE = 57, RELATIVE_MIN = 116, RELATIVE_ZERO = 160, LANES = 16, QUEUES = 4, PARTS = 4, FAR = 15 };
#define SPLIT_ELEMENTS 16384u
#define STATE_MIN 65536u

typedef struct {
  size_t rows, cols, rows_per_block, blocks;
  unsigned element; /* bytes */
} compact_view;

typedef struct {
  compact_view view;
  enum compact_kind kind;
  int level; /* 1 max, 2 fast */
  int16_t *row_class;
  int16_t *col_class;
  compact_table *tables; /* four, or one for bytes */
  uint8_t *symbols;      /* a block's */
  uint8_t *queue;        /* its symbols by table */
} compact_tensor;

/* Escapes in nibbles; past the end they are 0 and `at` says so. */
typedef struct {
  const uint8_t *bytes;
  size_t size;
  size_t at;
} compact_escapes;

static int compact_nibble(compact_escapes *escapes) {
  size_t i = escapes->at++;
  if (i / 2 >= escapes->size) return 0;
  return i % 2 == 0 ? escapes->bytes[i / 2] & 15 : escapes->bytes[i / 2] >> 4;
}

static int compact_escape(compact_escapes *escapes, int expected) {
  int value = compact_nibble(escapes);
  int relative, coded;
  if (value < FAR) return expected + RELATIVE_MIN - 1 - value;
  relative = compact_nibble(escapes);
  relative |= compact_nibble(escapes) << 4;
  if (relative < 255) return expected + relative;
  coded = compact_nibble(escapes);
  coded |= compact_nibble(escapes) << 4;
  coded |= compact_nibble(escapes) << 8;
  return coded | compact_nibble(escapes) << 12;
}

static unsigned compact_table_of(const compact_tensor *tensor, size_t row, size_t col) {
  if (tensor->kind == COMPACT_BYTES) return 0;
  return (unsigned)(tensor->row_class[row] + tensor->col_class[col]) & 3u;
}

static int compact_rans(const compact_tensor *tensor, size_t first_row, size_t rows, const uint8_t *states, const uint8_t *words, size_t size) {
  uint32_t state[LANES];
  size_t at = 0, r, c, cols = tensor->view.cols;
  unsigned lane;
  for (lane = 0; lane < LANES; lane++) {
    state[lane] = compact_u32(states + 4 * lane);
    if (state[lane] < STATE_MIN) return 0;
  }
  for (r = 0; r < rows; r++) {
    for (c = 0; c < cols; c++) {
      const compact_table *table = tensor->tables + compact_table_of(tensor, first_row + r, c);
      uint32_t x = state[c % LANES];
      uint32_t slot = x % TABLE_SIZE;
      unsigned symbol = table->by_slot[slot];
      x = table->frequency[symbol] * (x >> TABLE_BITS) + slot - table->start[symbol];
      if (x < STATE_MIN) {
        uint32_t word = at < size ? words[at] : 0;
        if (at + 1 < size) word |= (uint32_t)words[at + 1] << 8;
        x = x << 16 | word;
        at += 2;
      }
      state[c % LANES] = x;
      tensor->symbols[r * cols + c] = (uint8_t)symbol;
    }
  }
  for (lane = 0; lane < LANES; lane++)
    if (state[lane] != STATE_MIN) return 0;
  return at <= size && size - at < 4;
}

/* Returns the bit after the last code. */
static size_t compact_stream(const compact_table *table, const uint8_t *stream, size_t size, size_t bit, uint8_t *out, size_t count) {
  compact_bits bits;
  size_t i;
  bits.bytes = stream;
  bits.size = size;
  bits.at = bit;
  for (i = 0; i < count; i++) {
    uint16_t entry = table->by_bits[compact_peek(&bits) & (TABLE_SIZE - 1)];
    out[i] = (uint8_t)(entry >> 8);
    bits.at += entry & 255u;
  }
  return bits.at;
}

static int compact_huffman(const compact_tensor *tensor, size_t first_row, size_t rows, const uint8_t *lengths, const uint8_t *streams, size_t size) {
  size_t cols = tensor->view.cols, count = rows * cols, quarter = (count + QUEUES - 1) / QUEUES;
  size_t begin[QUEUES + 1] = {0}, next[QUEUES];
  size_t i, r, c, at = 0, bit = 0;
  unsigned t, p;
  int is_split = count >= SPLIT_ELEMENTS;
  for (r = 0; r < rows && tensor->kind != COMPACT_BYTES; r++)
    for (c = 0; c < cols; c++) begin[compact_table_of(tensor, first_row + r, c) + 1]++;
  for (t = 0; t < QUEUES; t++) {
    if (tensor->kind == COMPACT_BYTES) begin[t + 1] = compact_min(count, quarter * (t + 1));
    else begin[t + 1] += begin[t];
  }
  for (t = 0; t < QUEUES; t++) {
    const compact_table *table = tensor->tables + (tensor->kind == COMPACT_BYTES ? 0 : t);
    uint8_t *queue = tensor->queue + begin[t];
    size_t length = begin[t + 1] - begin[t], part = (length + PARTS - 1) / PARTS;
    next[t] = begin[t];
    if (!is_split) {
      bit = compact_stream(table, streams, size, bit, queue, length);
      continue;
    }
    for (p = 0; p < PARTS; p++) {
      unsigned s = PARTS * t + p;
      size_t from = compact_min(p * part, length), to = compact_min(from + part, length);
      size_t bytes = s + 1 < QUEUES * PARTS ? compact_u16(lengths + 2 * s) : size - at;
      size_t used;
      if (bytes > size - at) return 0;
      used = (compact_stream(table, streams + at, bytes, 0, queue + from, to - from) + 7) / 8;
      if (s + 1 < QUEUES * PARTS ? used != bytes : used > bytes || bytes - used >= 4) return 0;
      at += bytes;
    }
  }
  bit = (bit + 7) / 8;
  if (!is_split && (bit > size || size - bit >= 4)) return 0;
  if (tensor->kind == COMPACT_BYTES) memcpy(tensor->symbols, tensor->queue, count);
  else
    for (i = 0; i < count; i++) tensor->symbols[i] = tensor->queue[next[compact_table_of(tensor, first_row + i / cols, i % cols)]++];
  return 1;
}

/* Sign and low mantissa bits of element `i`. */
static unsigned compact_raw(enum compact_kind kind, const uint8_t *raw, size_t count, size_t i) {
  size_t group, left, g, within;
  unsigned bits, k;
  if (kind == COMPACT_F16) return raw[i] | (raw[compact_words(count) + i / 8] >> i % 8 & 1u) << 15;
  group = i / 64;
  left = compact_min(64, count - 64 * group);
  g = (left + 3) / 4;
  within = i % 64;
  raw += 48 * group;
  if (within < 3 * g) bits = raw[within] & 63u;
  else {
    bits = 0;
    for (k = 0; k < 3; k++) bits |= (unsigned)(raw[k * g + within - 3 * g] >> 6) << 2 * k;
  }
  return (bits & 31u) | (bits & 32u) << 10;
}

static size_t compact_raw_bytes(enum compact_kind kind, size_t count) {
  if (kind == COMPACT_BYTES) return 0;
  if (kind == COMPACT_F16) return compact_words(count) + 4 * ((count + 31) / 32);
  return compact_words(count / 64 * 48 + 3 * ((count % 64 + 3) / 4));
}

static int compact_block(const compact_tensor *tensor, size_t b, const uint8_t *block, size_t size, uint8_t *out) {
  const compact_view *view = &tensor->view;
  size_t first_row = b * view->rows_per_block;
  size_t rows = compact_min(view->rows_per_block, view->rows - first_row);
  size_t cols = view->cols, count = rows * cols, bytes = count * view->element;
  int is_split = count >= SPLIT_ELEMENTS;
  size_t header = tensor->level == 1 ? 4 + 4 * LANES : is_split ? 2 * QUEUES * PARTS : 2;
  size_t raw_bytes = compact_raw_bytes(tensor->kind, count);
  size_t fixed, i;
  const uint8_t *raw = block + header;
  compact_escapes escapes;
  int ok;
  if (size == compact_words(bytes)) {
    memcpy(out, block, bytes);
    return 1;
  }
  if (size < header) return 0;
  escapes.size = compact_u16(block);
  escapes.at = 0;
  fixed = header + raw_bytes + escapes.size;
  if (fixed > size) return 0;
  escapes.bytes = raw + raw_bytes;
  ok = tensor->level == 1 ? compact_rans(tensor, first_row, rows, block + 4, block + fixed, size - fixed)
                          : compact_huffman(tensor, first_row, rows, block + 2, block + fixed, size - fixed);
  if (!ok) return 0;
  if (tensor->kind == COMPACT_BYTES) {
    memcpy(out, tensor->symbols, count);
    return 1;
  }
  for (i = 0; i < count; i++) {
    int q = tensor->row_class[first_row + i / cols] + tensor->col_class[i % cols];
    int octaves = q >= 0 ? q / 4 : -((3 - q) / 4);
    int zero = 4 * octaves - RELATIVE_ZERO;
    int symbol = tensor->symbols[i];
    unsigned coded = (unsigned)(symbol == ESCAPE ? compact_escape(&escapes, zero) : zero + symbol + RELATIVE_MIN);
    unsigned pattern = compact_raw(tensor->kind, raw, count, i);
    pattern |= tensor->kind == COMPACT_BF16 ? (coded & 0x3ffu) << 5 : (coded & 0x7fu) << 8;
    out[2 * i] = (uint8_t)pattern;
    out[2 * i + 1] = (uint8_t)(pattern >> 8);
  }
  return (escapes.at + 1) / 2 == escapes.size;
}

#endif
