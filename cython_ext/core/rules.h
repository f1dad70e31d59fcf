/* rules.h: how each type is walked: a table from type to rule, filled by Python code on first sight.
 *
 * Nouns
 *   rule      body (how the references of the type's own part are listed), flags, hash kind, and the places of its
 *             attribute dict, slots and weak references
 *   version   tp_version_tag when the rule was made; CPython takes a new, never used one whenever a class or one of
 *             its bases changes, and never gives one to two types
 *
 * Layout: open addressing by type address; a rule is reached by one or two loads.
 *
 * Invariants
 *   1. A rule of a heap type is used only while the type has the same nonzero version tag: so a patched class is
 *      classified again, and a new class at the address of a dead one is not taken for it.
 *   2. The table keeps no type alive.
 *   3. Rules are made or dropped only in sa_rules_classify, never during counting.
 *
 * Thread rule: GIL held. Cost: look-up 2-3 ns; classifying about 20 us, once per type and version.
 */
#ifndef SA_RULES_H
#define SA_RULES_H

#include <Python.h>
#include <stdint.h>

typedef enum sa_body {
    SA_BODY_PIN,      /* cannot be serialised faithfully */
    SA_BODY_LEAF,     /* immutable, shared by value, holds nothing that matters */
    SA_BODY_SHARED,   /* stands for itself: serialised by identity */
    SA_BODY_FUNCTION, /* shared when its module finds it by its name, else pinned */
    SA_BODY_BUILTIN,  /* built-in function: shared when it belongs to a module */
    SA_BODY_OBJECT,   /* no native part: attributes and slots only */
    SA_BODY_LIST,
    SA_BODY_TUPLE,
    SA_BODY_DICT,
    SA_BODY_ORDERED_DICT,
    SA_BODY_DEFAULT_DICT,
    SA_BODY_SET,      /* set, frozenset */
    SA_BODY_TRAVERSE, /* references are those that tp_traverse reports */
    SA_BODY_BYTEARRAY,
    SA_BODY_ARRAY,    /* array.array */
    SA_BODY_NDARRAY,
    SA_BODY_DATETIME, /* datetime, time: may hold a tzinfo */
    SA_BODY_BASE,     /* subclass of str, bytes, int, float: immutable native part, may have attributes */
    SA_BODY_COUNT
} sa_body;

enum { /* flags of a rule */
    SA_RULE_VALUE = 1,  /* immutable itself: may be shared with the outside if all it holds may */
    SA_RULE_PLAIN = 2,  /* pickle's C code writes it without looking for a reducer */
    SA_RULE_OPAQUE = 4, /* a leaf with hidden parts: its bytes are estimated */
    SA_RULE_OWN_REDUCER = 8 /* registered by the user with reduce and restore */
};

typedef enum sa_hash_kind { /* may it be a dict key or a set member? */
    SA_HASH_NONE,     /* not hashable, or by its own code: never */
    SA_HASH_STABLE,   /* by content: both */
    SA_HASH_KEY_ONLY, /* by content but for some contents: dict key only */
    SA_HASH_MEMBERS,  /* by its members: both, if they may */
    SA_HASH_FIELDS,   /* by fields that are set after creation: both, if these are stable */
    SA_HASH_IDENTITY, /* by address: dict key only */
    SA_HASH_COUNT
} sa_hash_kind;

typedef enum sa_dict_kind { SA_DICT_NONE, SA_DICT_MANAGED, SA_DICT_OFFSET } sa_dict_kind;

typedef struct sa_rule {
    PyTypeObject *type; /* compared, never followed after the look-up */
    uint32_t version;   /* 0 for static types, which cannot change */
    uint8_t body;       /* sa_body */
    uint8_t flags;      /* SA_RULE_... */
    uint8_t hash;       /* sa_hash_kind */
    uint8_t dict_kind;  /* sa_dict_kind */
    Py_ssize_t dict_offset;
    Py_ssize_t weak_offset; /* 0: no weak references possible */
    Py_ssize_t slot_count;
    Py_ssize_t *slot_offset; /* owned */
    Py_ssize_t extra_bytes;  /* told by register_type: memory of C that nothing shows */
    PyObject *reason;        /* str for SA_BODY_PIN, else NULL; owned */
} sa_rule;

typedef enum sa_reason { /* why a value is held or pinned, apart from the reasons that rules carry */
    SA_REASON_OUTSIDE,
    SA_REASON_WEAK,
    SA_REASON_ATTRIBUTES,
    SA_REASON_BUSY,
    SA_REASON_COUNTS,
    SA_REASON_SHARED_ROOT,
    SA_REASON_FUNCTION,
    SA_REASON_BOUND,
    SA_REASON_HASH,
    SA_REASON_MEMBER,
    SA_REASON_NAN,
    SA_REASON_DICT_TYPE,
    SA_REASON_VIEW,
    SA_REASON_DTYPE,
    SA_REASON_TIMEZONE,
    SA_REASON_TYPES,
    SA_REASON_COUNT
} sa_reason;

typedef struct sa_rules {
    sa_rule **slot; /* open addressing; NULL is free */
    size_t mask;
    size_t count;
    PyObject *classify; /* owned: type -> (body, flags, hash kind, reason or None) */
    PyObject *reason[SA_REASON_COUNT]; /* str each */
    PyObject *generic_bases;  /* types written in C that add nothing to object (typing.Generic), a tuple */
    destructor class_dealloc; /* tp_dealloc of every class made by a class statement */
    int numpy_major;          /* 1 or 2 when the self-test of the array layout passed, else 0 */
} sa_rules;

enum { SA_RULES_LIMIT = 4096 }; /* rules kept; then all are dropped and made again when met */

sa_rules *sa_rules_create(PyObject *classify); /* NULL with MemoryError set */
void sa_rules_destroy(sa_rules *rules);

/* The valid rule of a type, or NULL when it has to be classified. Runs no Python code. */
const sa_rule *sa_rules_find(const sa_rules *rules, PyTypeObject *type);

/* Classify `type` (runs Python code) and keep the rule. Returns 0; 1 when the type has no version tag, so that the rule
 * pins it but sa_rules_find cannot find it; -1 with an exception set. `*made` is the rule, until the next call. */
int sa_rules_classify(sa_rules *rules, PyTypeObject *type, const sa_rule **made);

/* Drop all rules: they are made again when their types are met. */
void sa_rules_forget(sa_rules *rules);

/* Why the layout of `type` is not that of a class made by class statements over `native`; NULL when it is. */
const char *sa_layout_problem(const sa_rules *rules, PyTypeObject *type, PyTypeObject *native);

/* 1 for float, complex and Decimal objects that are not equal to themselves. */
int sa_is_nan(PyObject *object);

#endif
