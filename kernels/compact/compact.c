/* Tensors of compact files (both levels) to their bytes, in plain C99.
 *
 * compact_decode takes the payload of one tensor as it lies in the file, with dtype and shape from the header that the file holds. It checks every
 * length, index and checksum: damaged input gives an error, never a read or write out of bounds. The format: docs/formats/compact.md.
 *
 *   cc -O2 -c compact.c                                        the decoder alone; its headers lie beside it
 *   cc -O2 -DCOMPACT_SELFTEST compact.c -o selftest && ./selftest ..
 *                                                              decodes a tensor of the artifact in .. and compares its SHA-256
 *
 * Numbers and bits: least significant first.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "compact_block.h"
#include "compact_codes.h"
/* compact_frequencies[4][58], compact_lengths[4][58]: the constants of the format. */
#include "compact_tables.h"

typedef struct {
  enum compact_kind kind; /* BF16, F16, every other dtype */
  unsigned width;         /* bytes of an element: 1, 2, 4 or 8 */
  size_t bytes;           /* of the whole tensor */
  size_t first;           /* first dimension; 0 when the shape has fewer than two */
} compact_shape;

enum compact_status {
  COMPACT_OK = 0,
  COMPACT_BAD_TAIL = -1,     /* lengths, classes or tables */
  COMPACT_BAD_BLOCK = -2,    /* parts of a block do not fit it, or do not end with its elements */
  COMPACT_BAD_CHECKSUM = -3, /* other elements than were encoded */
  COMPACT_NO_MEMORY = -4
};

enum { TAIL_BYTES = 12 };
#define BLOCK_ELEMENTS 262144u
#define MAX_COLS 131072u
#define RAW_PIECE 262144u
#define MAX_PROGRESSION 1048576u

/* How the tensor is looked at: rows, and blocks of rows. Returns 0 when it can only be raw. */
static int compact_look(const compact_shape *shape, compact_view *view) {
  size_t elements, cols;
  view->element = shape->kind == COMPACT_BYTES ? 1 : 2;
  elements = shape->bytes / view->element;
  if (elements == 0 || shape->bytes % view->element != 0) return 0;
  cols = elements;
  if (shape->first > 0 && elements % shape->first == 0) cols = elements / shape->first;
  if (cols < 16) cols = elements;
  if (cols > MAX_COLS) {
    size_t parts = (cols + MAX_COLS - 1) / MAX_COLS;
    while (parts <= cols / 1024 && cols % parts != 0) parts++;
    if (parts > cols / 1024) return 0;
    cols /= parts;
  }
  view->cols = cols;
  view->rows = elements / cols;
  view->rows_per_block = compact_min(view->rows, BLOCK_ELEMENTS / cols < 1 ? 1 : BLOCK_ELEMENTS / cols);
  view->blocks = (view->rows + view->rows_per_block - 1) / view->rows_per_block;
  return 1;
}

static int compact_classes(compact_bits *bits, int16_t *out, size_t count, int base, unsigned parameter, int min, int max) {
  uint16_t *by_bits = NULL;
  size_t i;
  int ok = parameter < 8 || parameter == 15;
  if (parameter == 15) {
    uint8_t lengths[256];
    size_t symbols = compact_take(bits, 8) + 1;
    for (i = 0; i < symbols; i++) lengths[i] = (uint8_t)compact_take(bits, 4);
    by_bits = (uint16_t *)calloc(TABLE_SIZE, sizeof *by_bits);
    ok = by_bits != NULL && compact_codes(lengths, symbols, by_bits);
  }
  for (i = 0; ok && i < count; i++) {
    int value;
    if (by_bits != NULL) {
      uint16_t entry = by_bits[compact_peek(bits) & (TABLE_SIZE - 1)];
      bits->at += entry & 255u;
      value = base + (entry >> 8);
    } else {
      uint32_t v = 0;
      while (v <= 2048 && compact_take(bits, 1) == 1) v++;
      v = (v << parameter) + compact_take(bits, parameter);
      value = base + (v % 2 == 0 ? (int)(v / 2) : -(int)((v + 1) / 2));
    }
    ok = value >= min && value <= max && bits->at <= 8 * bits->size;
    out[i] = (int16_t)value;
  }
  free(by_bits);
  return ok;
}

static int compact_raw_tensor(const compact_shape *shape, const uint8_t *payload, size_t size, size_t tail, uint8_t *out) {
  size_t pieces = (shape->bytes + RAW_PIECE - 1) / RAW_PIECE, p;
  if (tail != TAIL_BYTES + 4 * pieces || size - tail != compact_words(shape->bytes)) return COMPACT_BAD_TAIL;
  if (shape->bytes > 0) memcpy(out, payload, shape->bytes);
  for (p = 0; p < pieces; p++) {
    size_t at = p * RAW_PIECE;
    if (compact_checksum(out + at, compact_min(RAW_PIECE, shape->bytes - at)) != compact_u32(payload + size - tail + 4 * p)) return COMPACT_BAD_CHECKSUM;
  }
  return COMPACT_OK;
}

static int compact_progression(const compact_shape *shape, const uint8_t *tail, size_t size, uint8_t *out) {
  uint64_t value = compact_u64(tail), step = compact_u64(tail + 8);
  size_t at;
  unsigned i;
  if (size != 20 + TAIL_BYTES || shape->bytes > MAX_PROGRESSION || shape->width == 0 || shape->bytes % shape->width != 0) return COMPACT_BAD_TAIL;
  for (at = 0; at < shape->bytes; at += shape->width) {
    for (i = 0; i < shape->width; i++) out[at + i] = (uint8_t)(value >> 8 * i);
    value += step;
  }
  return compact_checksum(out, shape->bytes) == compact_u32(tail + 16) ? COMPACT_OK : COMPACT_BAD_CHECKSUM;
}

/* Classes and tables of a tensor of blocks; the index begins at `index` of the tail. */
static int compact_prepare(compact_tensor *tensor, const uint8_t *tail, size_t index, const uint8_t *fixed) {
  const compact_view *view = &tensor->view;
  unsigned t;
  size_t i;
  if (tensor->kind == COMPACT_BYTES) {
    uint16_t frequency[256] = {0};
    size_t first = fixed[2], last = fixed[3];
    if (last < first || index != compact_words(((last - first + 1) * 12 + 7) / 8)) return 0;
    for (i = first; i <= last; i++) {
      size_t bit = 12 * (i - first);
      frequency[i] = (uint16_t)(compact_u16(tail + bit / 8) >> bit % 8 & 0xfffu);
    }
    return compact_build(tensor->tables, frequency, NULL, 256);
  }
  {
    compact_bits bits;
    int row_base = (int16_t)compact_u16(fixed + 4), col_base = (int16_t)compact_u16(fixed + 6);
    bits.bytes = tail;
    bits.size = index;
    bits.at = 0;
    if (!compact_classes(&bits, tensor->row_class, view->rows, row_base, fixed[2], 0, 1023)) return 0;
    if (fixed[3] == 255) memset(tensor->col_class, 0, view->cols * sizeof *tensor->col_class);
    else if (!compact_classes(&bits, tensor->col_class, view->cols, col_base, fixed[3], -127, 127)) return 0;
    if ((bits.at + 31) / 32 * 4 != index) return 0;
  }
  for (t = 0; t < 4; t++)
    if (!compact_build(tensor->tables + t, compact_frequencies[t], compact_lengths[t], ESCAPE + 1)) return 0;
  return 1;
}

static int compact_blocks(compact_tensor *tensor, const compact_shape *shape, const uint8_t *payload, size_t size, size_t tail, uint8_t *out) {
  const compact_view *view = &tensor->view;
  const uint8_t *start = payload + size - tail;
  size_t sums = tail - TAIL_BYTES - 4 * view->blocks, index = sums - 4 * (view->blocks - 1);
  size_t unit = view->rows_per_block * view->cols * view->element, end = size - tail, at = 0, b;
  if (!compact_prepare(tensor, start, index, payload + size - TAIL_BYTES)) return COMPACT_BAD_TAIL;
  for (b = 0; b < view->blocks; b++) {
    size_t bytes = compact_min(unit, shape->bytes - b * unit);
    size_t length = b + 1 < view->blocks ? compact_u32(start + index + 4 * b) : end - at;
    if (length > end - at || length % 4 != 0 || length > compact_words(bytes)) return COMPACT_BAD_TAIL;
    if (!compact_block(tensor, b, payload + at, length, out + b * unit)) return COMPACT_BAD_BLOCK;
    if (compact_checksum(out + b * unit, bytes) != compact_u32(start + sums + 4 * b)) return COMPACT_BAD_CHECKSUM;
    at += length;
  }
  return at == end ? COMPACT_OK : COMPACT_BAD_TAIL;
}

/* Decodes a tensor to `shape->bytes` bytes. */
int compact_decode(const compact_shape *shape, const uint8_t *payload, size_t size, uint8_t *out) {
  compact_tensor tensor;
  size_t tail, block;
  int status = COMPACT_NO_MEMORY;
  unsigned mode;
  if (size < TAIL_BYTES) return COMPACT_BAD_TAIL;
  tail = compact_u32(payload + size - 4);
  if (tail < TAIL_BYTES || tail > size || tail % 4 != 0) return COMPACT_BAD_TAIL;
  mode = payload[size - TAIL_BYTES];
  if (mode == 0) return compact_raw_tensor(shape, payload, size, tail, out);
  if (mode == 3) return tail == size ? compact_progression(shape, payload, tail, out) : COMPACT_BAD_TAIL;
  if (!compact_look(shape, &tensor.view) || mode != (shape->kind == COMPACT_BYTES ? 2u : 1u)) return COMPACT_BAD_TAIL;
  tensor.kind = shape->kind;
  tensor.level = payload[size - TAIL_BYTES + 1];
  if (tensor.level != 1 && tensor.level != 2) return COMPACT_BAD_TAIL;
  if (tensor.view.blocks > (tail - TAIL_BYTES + 4) / 8) return COMPACT_BAD_TAIL;
  /* A class takes a bit at least: nothing larger than the file is made. */
  if (mode == 1 && tensor.view.rows > 8 * tail) return COMPACT_BAD_TAIL;
  block = tensor.view.rows_per_block * tensor.view.cols;
  tensor.row_class = (int16_t *)malloc(2 * (mode == 1 ? tensor.view.rows : 1));
  tensor.col_class = (int16_t *)malloc(2 * tensor.view.cols);
  tensor.tables = (compact_table *)malloc(4 * sizeof *tensor.tables);
  tensor.symbols = (uint8_t *)malloc(block);
  tensor.queue = (uint8_t *)malloc(block);
  if (tensor.row_class != NULL && tensor.col_class != NULL && tensor.tables != NULL && tensor.symbols != NULL && tensor.queue != NULL)
    status = compact_blocks(&tensor, shape, payload, size, tail, out);
  free(tensor.row_class);
  free(tensor.col_class);
  free(tensor.tables);
  free(tensor.symbols);
  free(tensor.queue);
  return status;
}

#ifdef COMPACT_SELFTEST
#include "compact_host.h"

int main(int argc, char **argv) {
  size_t i;
  int wrong = 0;
  for (i = 0; i < sizeof compact_tests / sizeof *compact_tests; i++) wrong += compact_run_test(argc, argv, &compact_tests[i]);
  return wrong != 0;
}
#endif
