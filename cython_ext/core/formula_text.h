/* formula_text.h - the bytes of expressions: written one after another, read with every step checked.
 *
 * Words: a *writer* is bytes with a limit; a *reader* is what is left of a formula; a *varint* is 7 bits a byte, low bits
 * first, bit 7 set on all but the last, never longer than it must be; *zigzag* puts the sign of a number into bit 0.
 *
 *   sa_writer   at -> free ... end        overflown: something did not fit
 *   sa_reader   at -> unread ... end      wrong: what was found wrong first, NULL for nothing
 *
 * Invariant: neither touches a byte outside its limits; after an error a reader gives zeros and a writer keeps its bytes.
 *
 * Threads: pure. Cost: nanoseconds.
 */
#ifndef SA_FORMULA_TEXT_H
#define SA_FORMULA_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct sa_writer {
    uint8_t *at, *end;
    int overflown;
} sa_writer;

typedef struct sa_reader {
    const uint8_t *at, *end;
    const char *wrong;
} sa_reader;

static inline void sa_put_bytes(sa_writer *writer, const void *bytes, size_t count) {
    if ((size_t)(writer->end - writer->at) < count) {
        writer->overflown = 1;
        return;
    }
    memcpy(writer->at, bytes, count);
    writer->at += count;
}

static inline void sa_put_byte(sa_writer *writer, unsigned byte) {
    uint8_t one = (uint8_t)byte;
    sa_put_bytes(writer, &one, 1);
}

static inline void sa_put_word(sa_writer *writer, uint64_t word, unsigned bytes) {
    uint8_t text[8];
    for (unsigned i = 0; i < bytes; i++) text[i] = (uint8_t)(word >> (8 * i));
    sa_put_bytes(writer, text, bytes);
}

static inline void sa_put_varint(sa_writer *writer, uint64_t number) {
    for (; number >= 0x80; number >>= 7) sa_put_byte(writer, (unsigned)(number & 0x7F) | 0x80);
    sa_put_byte(writer, (unsigned)number);
}

/* A word as the signed number that it is in two's complement. */
static inline void sa_put_zigzag(sa_writer *writer, uint64_t word) {
    sa_put_varint(writer, word << 1 ^ (uint64_t)-(int64_t)(word >> 63));
}

static inline void sa_read_wrong(sa_reader *reader, const char *what) {
    if (reader->wrong == NULL) reader->wrong = what;
    reader->at = reader->end;
}

static inline const uint8_t *sa_read_bytes(sa_reader *reader, uint64_t count) {
    const uint8_t *bytes = reader->at;
    if ((uint64_t)(reader->end - reader->at) < count) {
        sa_read_wrong(reader, "it is cut short");
        return NULL;
    }
    reader->at += count;
    return bytes;
}

static inline unsigned sa_read_byte(sa_reader *reader) {
    const uint8_t *byte = sa_read_bytes(reader, 1);
    return byte == NULL ? 0 : *byte;
}

static inline uint64_t sa_read_word(sa_reader *reader, unsigned bytes) {
    const uint8_t *text = sa_read_bytes(reader, bytes);
    uint64_t word = 0;
    for (unsigned i = 0; text != NULL && i < bytes; i++) word |= (uint64_t)text[i] << (8 * i);
    return word;
}

static inline uint64_t sa_read_varint(sa_reader *reader) {
    uint64_t number = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        unsigned byte = sa_read_byte(reader);
        number |= (uint64_t)(byte & 0x7F) << shift;
        if (byte >= 0x80) continue;
        if ((shift == 63 && byte > 1) || (byte == 0 && shift > 0)) break;
        return number;
    }
    sa_read_wrong(reader, "a number is not written as it must be");
    return 0;
}

static inline uint64_t sa_read_zigzag(sa_reader *reader) {
    uint64_t number = sa_read_varint(reader);
    return number >> 1 ^ (uint64_t)-(int64_t)(number & 1);
}

#endif
