# _closure.pyx: the closedness walk, the sizer and the state of instances, for Python and (through a capsule) for C.
#
# Nouns and invariants are in core/closure.h, core/sizer.h, core/rules.h and core/instance.h. This file owns the table
# of type rules of the process, fills the capsule, and tests at import that the private layouts of the interpreter are
# what core/layout.h says. Types whose layout failed its test are pinned: slower to leave, never wrong.
#
# Thread rule: GIL held throughout. Cost: a Python call (about 60 ns) over the C functions.

from cpython.object cimport PyObject, PyTypeObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF, Py_XDECREF

from time import perf_counter

from c_closure cimport (
    SA_CLOSURE_CAPSULE,
    sa_closure,
    sa_closure_api,
    sa_rules,
    sa_verdict,
)


cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(object items, Py_ssize_t index)
    Py_ssize_t Py_REFCNT(object value)
    object PyUnicode_FromObject(object value)
    object PyBytes_FromStringAndSize(const char *data, Py_ssize_t length)
    char *PyBytes_AS_STRING(object value)
    Py_ssize_t PyBytes_GET_SIZE(object value)
    object PyFloat_FromDouble(double value)
    double PyFloat_AS_DOUBLE(object value)
    PyObject *PyDict_GetItemWithError(object items, object key) except? NULL


cdef extern from "closure.h":
    int sa_closure_walk(sa_closure *walker, PyObject *root, Py_ssize_t known_references, sa_verdict *out) except -1
    sa_closure *sa_closure_create(sa_rules *rules) except NULL
    object sa_closure_odd_sets(const sa_closure *walker)
    void sa_closure_fill_api(sa_closure_api *api, sa_rules *rules)


cdef extern from "rules.h":
    ctypedef struct sa_rule:
        unsigned char body
        unsigned char flags
        unsigned char hash

    ctypedef void (*destructor)(PyObject *)

    ctypedef struct sa_rules_fields "sa_rules":
        PyObject *classify
        PyObject *generic_bases
        destructor class_dealloc
        int numpy_major

    sa_rules *sa_rules_create(object classify) except NULL
    const sa_rule *sa_rules_find(const sa_rules *rules, PyTypeObject *type)
    int sa_rules_classify(sa_rules *rules, PyTypeObject *type, const sa_rule **made) except -1
    const char *sa_layout_problem(const sa_rules *rules, PyTypeObject *type, PyTypeObject *native)
    void sa_rules_forget(sa_rules *rules)
    int sa_is_nan(object value)


cdef extern from "set_order.h":
    int sa_set_order_kept(object members)
    object sa_set_layout(object members)
    int sa_set_arrange(object members, object layout) except -1


cdef extern from "sizer.h":
    Py_ssize_t sa_own_bytes(object value)
    Py_ssize_t sa_size_estimate(object value, int node_limit)
    Py_ssize_t sa_size_key(object key)


cdef extern from "instance.h":
    object sa_instance_attributes(object instance, const sa_rule *rule)
    object sa_instance_slots(object instance, const sa_rule *rule)
    object sa_instance_new(PyTypeObject *type, PyTypeObject *native)
    int sa_instance_restore(object instance, const sa_rule *rule, object attributes, object slots) except -1
    object sa_dict_items(object items)
    int sa_dict_fill(object items, object flat) except -1


cdef extern from "layout.h":
    ctypedef struct sa_attributes:
        PyObject *dict

    ctypedef struct sa_ndarray:
        char *data
        int dimension_count
        Py_ssize_t *shape
        Py_ssize_t *strides
        PyObject *base
        PyObject *dtype
        int flags

    ctypedef struct sa_dtype_head:
        char kind
        unsigned char old_flags
        int type_number
        unsigned long long new_flags

    ctypedef struct sa_array:
        Py_ssize_t allocated

    ctypedef struct sa_defaultdict:
        PyObject *default_factory

    int Py_TPFLAGS_MANAGED_DICT
    int SA_NDARRAY_OWNS_DATA
    int SA_NDARRAY_WRITEABLE
    int SA_DTYPE_HOLDS_OBJECTS
    int SA_DTYPE_METADATA_1
    int SA_DTYPE_METADATA_2
    sa_attributes sa_managed_attributes(object instance)


cdef extern from "closure.h":
    int SA_BUFFER_BYTES


# Codes of rules.h, for spectral_alloc.closure.
cdef extern from "rules.h":
    int SA_BODY_PIN, SA_BODY_LEAF, SA_BODY_SHARED, SA_BODY_FUNCTION, SA_BODY_BUILTIN, SA_BODY_OBJECT, SA_BODY_LIST
    int SA_BODY_TUPLE, SA_BODY_DICT, SA_BODY_ORDERED_DICT, SA_BODY_DEFAULT_DICT, SA_BODY_SET, SA_BODY_TRAVERSE
    int SA_BODY_BYTEARRAY, SA_BODY_ARRAY, SA_BODY_NDARRAY, SA_BODY_DATETIME, SA_BODY_BASE
    int SA_RULE_VALUE, SA_RULE_PLAIN, SA_RULE_OPAQUE, SA_RULE_OWN_REDUCER
    int SA_HASH_NONE, SA_HASH_STABLE, SA_HASH_KEY_ONLY, SA_HASH_MEMBERS, SA_HASH_FIELDS, SA_HASH_IDENTITY

BUFFER_BYTES = SA_BUFFER_BYTES
BODY_PIN, BODY_LEAF, BODY_SHARED, BODY_FUNCTION = SA_BODY_PIN, SA_BODY_LEAF, SA_BODY_SHARED, SA_BODY_FUNCTION
BODY_BUILTIN, BODY_OBJECT, BODY_LIST, BODY_TUPLE = SA_BODY_BUILTIN, SA_BODY_OBJECT, SA_BODY_LIST, SA_BODY_TUPLE
BODY_DICT, BODY_ORDERED_DICT, BODY_DEFAULT_DICT = SA_BODY_DICT, SA_BODY_ORDERED_DICT, SA_BODY_DEFAULT_DICT
BODY_SET, BODY_TRAVERSE, BODY_BYTEARRAY, BODY_ARRAY = SA_BODY_SET, SA_BODY_TRAVERSE, SA_BODY_BYTEARRAY, SA_BODY_ARRAY
BODY_NDARRAY, BODY_DATETIME, BODY_BASE = SA_BODY_NDARRAY, SA_BODY_DATETIME, SA_BODY_BASE
RULE_VALUE, RULE_PLAIN, RULE_OPAQUE, RULE_OWN_REDUCER = (
    SA_RULE_VALUE, SA_RULE_PLAIN, SA_RULE_OPAQUE, SA_RULE_OWN_REDUCER
)
HASH_NONE, HASH_STABLE, HASH_KEY_ONLY = SA_HASH_NONE, SA_HASH_STABLE, SA_HASH_KEY_ONLY
HASH_MEMBERS, HASH_FIELDS, HASH_IDENTITY = SA_HASH_MEMBERS, SA_HASH_FIELDS, SA_HASH_IDENTITY



def _no_classifier(cls):
    raise RuntimeError("import spectral_alloc.closure before walking values")


# The one table of rules of the process and the walker behind examine(); both live as long as the process.
cdef sa_rules *rules = sa_rules_create(_no_classifier)
cdef sa_rules_fields *rules_fields = <sa_rules_fields *>rules
cdef sa_closure *own_walker = sa_closure_create(rules)
cdef sa_closure_api api
sa_closure_fill_api(&api, rules)
_C_API = PyCapsule_New(&api, SA_CLOSURE_CAPSULE, NULL)
cdef type made_by_statement = type("made_by_statement", (), {})
rules_fields.class_dealloc = (<PyTypeObject *>made_by_statement).tp_dealloc


def set_classifier(classify, tuple generic_bases, int numpy_major):
    """Install what spectral_alloc.closure decides: classify(type) and the facts that its self-tests found."""
    cdef PyObject *old_classify = rules_fields.classify
    cdef PyObject *old_bases = rules_fields.generic_bases
    Py_INCREF(classify)
    Py_INCREF(generic_bases)
    rules_fields.classify = <PyObject *>classify
    rules_fields.generic_bases = <PyObject *>generic_bases
    rules_fields.numpy_major = numpy_major
    Py_XDECREF(old_classify)
    Py_XDECREF(old_bases)


def set_numpy_major(int numpy_major):
    """Tell the walk which layout of dtypes is in use (1 or 2), once the self-test of arrays has passed."""
    rules_fields.numpy_major = numpy_major


def forget_rules():
    """Make all rules again when their types are met."""
    sa_rules_forget(rules)


# ---- the walk ----

cdef tuple verdict_tuple(sa_verdict *verdict):
    reason = <object>verdict.reason if verdict.reason != NULL else None
    return verdict.status, verdict.flags, verdict.bytes, verdict.objects, reason


def examine(holder, key=0, Py_ssize_t known_references=1):
    """Walk holder[key] of a list or dict; the only reference that counts as the caller's is the one of the holder."""
    cdef sa_verdict verdict
    cdef PyObject *root
    if type(holder) is list:
        if not 0 <= <Py_ssize_t>key < len(holder):
            raise IndexError(f"index {key} of a list of {len(holder)}")
        root = PyList_GET_ITEM(holder, key)
    elif type(holder) is dict:
        root = PyDict_GetItemWithError(holder, key)
        if root == NULL:
            raise KeyError(key)
    else:
        raise TypeError(f"holder must be a list or a dict, not {type(holder).__name__}")
    sa_closure_walk(own_walker, root, known_references, &verdict)
    return verdict_tuple(&verdict)


def walk_cost(list holder, Py_ssize_t repeats):
    """Seconds of one walk of holder[0], from `repeats` walks without the cost of a Python call."""
    cdef sa_verdict verdict
    cdef Py_ssize_t index
    cdef double start = perf_counter()
    for index in range(repeats):
        sa_closure_walk(own_walker, PyList_GET_ITEM(holder, 0), 1, &verdict)
    return (perf_counter() - start) / repeats


# ---- sizes ----

def own_bytes(value):
    """Bytes that freeing this one object would give back to the allocator."""
    return sa_own_bytes(value)


def size_estimate(value, int node_limit=0):
    """Estimated bytes of a value with everything it holds."""
    return sa_size_estimate(value, node_limit)


def size_key(key):
    """Bytes of a dict key, the same at each call during its life."""
    return sa_size_key(key)


# ---- rules, for spectral_alloc.closure and spectral_alloc.serializer ----

def layout_problem(cls, native):
    """Why `cls` is not a class made by class statements over the type `native`; None when it is."""
    cdef const char *problem = sa_layout_problem(rules, <PyTypeObject *>cls, <PyTypeObject *>native)
    return None if problem == NULL else (<bytes>problem).decode()


cdef const sa_rule *rule_or_classify(cls) except NULL:
    if not isinstance(cls, type):
        raise TypeError(f"{cls!r} is not a type")
    cdef const sa_rule *rule = sa_rules_find(rules, <PyTypeObject *>cls)
    if rule == NULL:
        sa_rules_classify(rules, <PyTypeObject *>cls, &rule)
    return rule


def rule_of(cls):
    """(body, flags, hash kind) of a type, classifying it when it is new or was changed."""
    cdef const sa_rule *rule = rule_or_classify(cls)
    return rule.body, rule.flags, rule.hash


def is_nan(value):
    """Whether a float, complex or Decimal object is a NaN."""
    return bool(sa_is_nan(value))


def set_order_kept(members):
    """Whether a set rebuilt from its members in iteration order has the same table, so the same order ever after."""
    if not isinstance(members, (set, frozenset)):
        raise TypeError(f"members must be a set or frozenset, not {type(members).__name__}")
    cdef int kept = sa_set_order_kept(members)
    if kept < 0:
        raise MemoryError
    return bool(kept)


def odd_sets(value):
    """The sets in a value whose table pickle would not rebuild as it is."""
    cdef sa_verdict verdict
    sa_closure_walk(own_walker, <PyObject *>value, Py_REFCNT(value), &verdict)
    return sa_closure_odd_sets(own_walker)


def set_layout(members):
    """(places, deleted places, mask, finger) of a set or frozenset."""
    if not isinstance(members, (set, frozenset)):
        raise TypeError(f"members must be a set or frozenset, not {type(members).__name__}")
    return sa_set_layout(members)


def arrange_set(members, tuple layout):
    """Give a set that was rebuilt from its members, in their old order, the layout that set_layout told before."""
    if not isinstance(members, (set, frozenset)):
        raise TypeError(f"members must be a set or frozenset, not {type(members).__name__}")
    sa_set_arrange(members, layout)


# ---- instances ----

def instance_state(instance):
    """(attributes or None, slots or None) of an instance, as stored, without running its class's code."""
    cdef const sa_rule *rule = rule_or_classify(type(instance))
    return sa_instance_attributes(instance, rule), sa_instance_slots(instance, rule)


def new_instance(cls, native):
    """An empty instance of `cls`, made by the constructor of its native base alone."""
    return sa_instance_new(<PyTypeObject *>cls, <PyTypeObject *>native)


def restore_instance(instance, attributes, slots):
    """Fill an empty instance with what instance_state gave."""
    sa_instance_restore(instance, rule_or_classify(type(instance)), attributes, slots)


def dict_items(value):
    """[key, value, key, value ...] of a dict or subclass as stored, without running its methods."""
    if not isinstance(value, dict):
        raise TypeError(f"value must be a dict, not {type(value).__name__}")
    return sa_dict_items(value)


def fill_dict(value, list items):
    """Add what dict_items gave, without running __setitem__ of a subclass."""
    if not isinstance(value, dict):
        raise TypeError(f"value must be a dict, not {type(value).__name__}")
    sa_dict_fill(value, items)


def base_value(value):
    """The plain str, bytes, int or float that an instance of a subclass carries, without running its methods."""
    if isinstance(value, str):
        return PyUnicode_FromObject(value)
    if isinstance(value, bytes):
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return PyFloat_FromDouble(PyFloat_AS_DOUBLE(value))
    raise TypeError(f"{type(value).__qualname__} has no base value")


# ---- what the self-tests of spectral_alloc.trust compare ----

def managed_dict_address(instance):
    """Address of the attribute dict kept in front of an instance; 0 when it has none yet, None when unmanaged."""
    cls = type(instance)
    if not (<PyTypeObject *>cls).tp_flags & Py_TPFLAGS_MANAGED_DICT:
        return None
    return <size_t>sa_managed_attributes(instance).dict


def defaultdict_factory_address(value):
    """Address of default_factory, read from the private struct."""
    return <size_t>(<sa_defaultdict *><PyObject *>value).default_factory


def array_allocated_items(value):
    """Allocated items of an array.array, read from the private struct."""
    return (<sa_array *><PyObject *>value).allocated


def ndarray_fields(value):
    """(data address, shape, strides, base address, dtype address, owns data, writeable), read from the struct."""
    cdef sa_ndarray *array = <sa_ndarray *><PyObject *>value
    cdef int axis
    if not 0 <= array.dimension_count <= 64:
        return None
    shape = tuple([array.shape[axis] for axis in range(array.dimension_count)])
    strides = tuple([array.strides[axis] for axis in range(array.dimension_count)])
    return (
        <size_t>array.data, shape, strides, <size_t>array.base, <size_t>array.dtype,
        bool(array.flags & SA_NDARRAY_OWNS_DATA), bool(array.flags & SA_NDARRAY_WRITEABLE),
    )


def dtype_fields(value, int numpy_major):
    """(kind, type number, holds objects, has metadata) of a dtype, read from the struct of that numpy version."""
    cdef sa_dtype_head *head = <sa_dtype_head *><PyObject *>value
    cdef unsigned long long flags = head.new_flags if numpy_major >= 2 else head.old_flags
    cdef int offset = SA_DTYPE_METADATA_2 if numpy_major >= 2 else SA_DTYPE_METADATA_1
    cdef PyObject *metadata = (<PyObject **>(<char *><PyObject *>value + offset))[0]
    return chr(head.kind), head.type_number, bool(flags & SA_DTYPE_HOLDS_OBJECTS), metadata != NULL
