/* closure.h: is a value closed, and what would dropping it free?
 *
 * Nouns
 *   graph    every object reached from a root through counted references
 *   closed   nobody outside the graph (and the caller) can reach anything mutable in it, so a faithful copy made now
 *            and brought back later cannot be told from the original
 *   walker   scratch memory of one walk (pointer table, stack); reused by the next walk of the same walker
 *   verdict  the answer of one walk
 *
 * Layout
 *   sa_closure_api  is what the capsule "spectral_alloc._closure._C_API" points to:
 *
 *     api = PyCapsule_Import("spectral_alloc._closure._C_API", 0)
 *     walker = api->create(api)
 *     api->walk(walker, value, references_of_the_caller, &verdict)
 *     api->destroy(walker)
 *
 * Invariants
 *   1. A walk changes nothing: no reference count, no object, no allocation of Python objects.
 *   2. A walk runs no Python code, except that a type met for the first time (or changed since) is classified by
 *      Python code before anything is counted; the walk then starts again.
 *   3. Every counted reference between two objects of the graph is seen exactly once. An object whose references
 *      cannot be listed exactly is SA_PINNED, never guessed.
 *   4. The C stack used does not depend on the depth of the graph.
 *
 * Thread rule: call with the GIL held; one walk at a time per walker (a re-entered walker answers SA_HELD).
 * Cost: a held root that the collector does not track 10 ns, other held roots a bounded look; else 7-25 ns per object.
 */
#ifndef SA_CLOSURE_H
#define SA_CLOSURE_H

#include <Python.h>
#include <stdint.h>

typedef enum sa_status {
    SA_CLOSED = 0, /* may leave HOT now */
    SA_HELD = 1,   /* somebody outside holds a part of it, or weakly refers to it: try again later */
    SA_PINNED = 2  /* contains something that cannot be serialised faithfully: reason says what */
} sa_status;

/* Flags of a verdict; all but SA_RAN_PYTHON are 0 unless status is SA_CLOSED. */
enum {
    SA_FLAT = 1,        /* deeply immutable: cannot have changed since it was last serialised */
    SA_PLAIN = 2,       /* only types that pickle's C code writes itself: pickle.dumps(protocol=5) is exact */
    SA_HAS_BUFFERS = 4, /* holds an array or bytearray large enough for an out-of-band buffer */
    SA_CYCLIC = 8,      /* the root refers to itself */
    SA_ODD_SETS = 32,   /* holds sets whose table pickle would not rebuild as it is: dumps() writes their layout too */
    SA_RAN_PYTHON = 16  /* a type was classified: check that the entry still holds the root before relying on this */
};

enum { SA_BUFFER_BYTES = 1024 }; /* an array or bytearray of at least this size sets SA_HAS_BUFFERS */

typedef struct sa_verdict {
    int32_t status;     /* sa_status */
    uint32_t flags;     /* SA_FLAT | SA_PLAIN | ... */
    Py_ssize_t bytes;   /* memory that dropping the graph would free (SA_CLOSED), else what was seen so far */
    Py_ssize_t objects; /* objects of the graph that would be freed */
    PyObject *reason;   /* str for SA_HELD and SA_PINNED, else NULL; borrowed, lives until this walker's next walk */
} sa_verdict;

typedef struct sa_closure sa_closure;
typedef struct sa_rules sa_rules;

/* known_references: how many counted references to `root` the caller itself accounts for: 1 when only the cell's slot
 * holds it, 2 when the caller has also taken one. Returns 0, or -1 with a Python exception set (MemoryError, or what
 * classifying a new type raised); `out` is then untouched. */
int sa_closure_walk(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out);

/* The same without sums: bytes is 0, objects counts all that was looked at, shared or not. Half of the time. */
int sa_closure_look(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out);

sa_closure *sa_closure_create(sa_rules *rules);
void sa_closure_destroy(sa_closure *walker); /* NULL is fine; not while its own walk is running */

#define SA_CLOSURE_CAPSULE "spectral_alloc._closure._C_API"
#define SA_CLOSURE_ABI 2u

typedef struct sa_closure_api sa_closure_api;
struct sa_closure_api {
    uint32_t abi;          /* SA_CLOSURE_ABI */
    uint32_t struct_bytes; /* sizeof(sa_closure_api) of the module that filled it */
    sa_rules *rules;       /* the process's table of type rules, shared by all walkers */
    sa_closure *(*create)(const sa_closure_api *api); /* NULL with MemoryError set */
    void (*destroy)(sa_closure *walker);
    int (*walk)(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out);
    int (*look)(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out);
    Py_ssize_t (*size_estimate)(PyObject *value, int node_limit); /* bytes; see sizer.h */
    Py_ssize_t (*size_key)(PyObject *key);                        /* bytes; see sizer.h */
};

/* After a walk that went through all of the graph: a new list of the sets that SA_ODD_SETS speaks of. NULL with
 * RuntimeError when it did not. */
PyObject *sa_closure_odd_sets(const sa_closure *walker);

/* Fill the table that the capsule points to. */
void sa_closure_fill_api(sa_closure_api *api, sa_rules *rules);

#endif
