/* The compiled part of the hot path: what a hand-off costs around the program's own call.
 *
 * Each function here, but those of collections, has its twin in pure Python, in handoff.py and in
 * files of _items and _primitives, and does the same, step by step. compiled.py chooses which of the two
 * is used. Methods of work items, of queues, of futures and of events are objects that call C directly, and
 * leave no frame.
 *
 * What handoff.py calls `attach`, `detach`, `get_current`, ... is bound when it calls bind(), and again
 * when a test calls that, which has replaced one. Where they are the methods of a context variable,
 * the variable is used directly.
 *
 * Rules: no borrowed reference is held over a call that can run Python code. An exception that is
 * no `Exception`, such as KeyboardInterrupt, is never swallowed. The context is detached whatever
 * the program's call raises. All state belongs to the module, and so to one interpreter.
 */
#include "_c/callbacks.h"
#include "_c/simple_queues.h"
#include "_c/queue_hooks.h"
#include "_c/messages.h"
#include "_c/collections.h"

#define INTERFACE 8 /* compiled.py has the same number; a module of another is not used */

/* --- methods that the program sees ---------------------------------------------------------------------- */

static const struct Usual all_usual[] = {
    {"SimpleQueue.put", 11, 2, 4, put_simple},
    {"SimpleQueue.get", 11, 1, 1, get_simple},
    {"_WorkItem.__init__", 4, FROM_3_14 ? 3 : 5, FROM_3_14 ? 3 : 5, begin_item},
    {"_WorkItem.run", 4, 1, 2, run_item},
    {"Future.add_done_callback", 5, 2, 2, add_callback},
    {"Event.__iter__", 6, 1, 1, iterate},
    {"Queue._put", 17, 2, 2, put_in_order},
    {"Queue._get", 17, 1, 1, get_first},
    {"LifoQueue._put", 17, 2, 2, put_on_top},
    {"LifoQueue._get", 17, 1, 1, get_last},
    {"PriorityQueue._put", 17, 2, 2, put_sorted},
    {"PriorityQueue._get", 17, 1, 1, get_least},
    {"asyncio.Queue.get", 5, 1, 1, ask},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *call_method(PyObject *object, PyObject *const *args, size_t flags, PyObject *names) {
    Method *self = (Method *)object;
    State *state = PyType_GetModuleState(Py_TYPE(object));
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    PyObject *result;
    const struct Usual *usual = self->usual;
    if (count >= usual->least && count <= usual->most && names == NULL && state->namespace != NULL) {
        result = usual->run(state, self, args, count);
        if (result != NULL || PyErr_Occurred()) {
            return result;
        }
    }
    return PyObject_Vectorcall(PART(self, TWIN), args, flags, names);
}

static PyObject *bind_method(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(owner)) {
    return instance == NULL ? Py_NewRef(self) : PyMethod_New(self, instance);
}

static PyObject *read_attribute(PyObject *self, PyObject *name) {
    return PyObject_GetAttr(PART((Method *)self, TWIN), name);
}

static int set_attribute(PyObject *self, PyObject *name, PyObject *value) {
    return PyObject_SetAttr(PART((Method *)self, TWIN), name, value);
}

static PyObject *represent(PyObject *self) {
    return PyObject_Repr(PART((Method *)self, TWIN));
}

static int traverse_method(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Method *)self)->parts);
    return 0;
}

static void free_method(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyObject_ClearWeakRefs(self);
    Py_DECREF(((Method *)self)->parts);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMemberDef members_of_method[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Method, vectorcall), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Method, weak_references), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots_of_method[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, bind_method},
    {Py_tp_getattro, read_attribute},
    {Py_tp_setattro, set_attribute},
    {Py_tp_repr, represent},
    {Py_tp_traverse, traverse_method},
    {Py_tp_dealloc, free_method},
    {Py_tp_members, members_of_method},
    {0, NULL},
};

static PyType_Spec spec_of_method = {
    .name = "otel_concurrency._core._compiled.Method",
    .basicsize = sizeof(Method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE, /* or no interpreter remembers where it has found a method */
    .slots = slots_of_method,
};

/* method(kind, twin, *parts): return a method that is `twin`, a function in Python, of a known kind. */
static PyObject *method(PyObject *module, PyObject *parts) {
    State *state = PyModule_GetState(module);
    const struct Usual *usual = all_usual;
    PyObject *kind = PyTuple_GET_SIZE(parts) <= TWIN ? Py_None : PyTuple_GET_ITEM(parts, KIND);
    Method *made;
    if (expect(state, 0, 0, 0) < 0) {
        return NULL;
    }
    while (PyUnicode_Check(kind) && usual->kind != NULL &&
           PyUnicode_CompareWithASCIIString(kind, usual->kind) != 0) {
        usual++;
    }
    if (!PyUnicode_Check(kind) || usual->parts != PyTuple_GET_SIZE(parts) ||
        !PyFunction_Check(PyTuple_GET_ITEM(parts, TWIN))) {
        PyErr_SetString(PyExc_TypeError, "expected a known kind, a function, and its parts");
        return NULL;
    }
    if ((made = PyObject_GC_New(Method, (PyTypeObject *)state->Method)) == NULL) {
        return NULL;
    }
    made->vectorcall = call_method;
    made->usual = usual;
    made->parts = Py_NewRef(parts);
    made->weak_references = NULL;
    PyObject_GC_Track((PyObject *)made);
    return (PyObject *)made;
}

/* Allocate an instance of a class, and call its `__init__` in C. */
static PyObject *make_by_init(PyTypeObject *class, PyObject *init, PyObject **parts, Py_ssize_t count) {
    PyObject *made = PyType_GenericAlloc(class, 0), *nothing;
    parts[0] = made;
    nothing = made == NULL ? NULL : call_method(init, parts, count, NULL);
    if (nothing == NULL) {
        Py_CLEAR(made);
    }
    Py_XDECREF(nothing);
    return made;
}

/* Call the `__new__` of a class, a static method. */
static PyObject *make_by_new(PyTypeObject *class, PyObject *new, PyObject **parts, Py_ssize_t count) {
    PyObject *function = Py_TYPE(new)->tp_descr_get(new, NULL, (PyObject *)class), *made;
    parts[0] = (PyObject *)class;
    made = function == NULL ? NULL : PyObject_Vectorcall(function, parts, count, NULL);
    Py_XDECREF(function);
    return made;
}

/* Make an instance as type.__call__ does. */
static PyObject *make_by_type(PyObject *class, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *tuple, *named, *made = NULL;
    Py_ssize_t i;
    PyErr_Clear();
    tuple = PyTuple_New(count);
    named = names == NULL ? NULL : PyDict_New();
    for (i = 0; tuple != NULL && i < count; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    for (i = 0; named != NULL && i < PyTuple_GET_SIZE(names); i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, i), args[count + i]) < 0) {
            Py_CLEAR(named);
        }
    }
    if (tuple != NULL && (named != NULL || names == NULL)) {
        made = PyType_Type.tp_call(class, tuple, named);
    }
    Py_XDECREF(tuple);
    Py_XDECREF(named);
    return made;
}

/* Make an instance of a class as calling it does. The short ways are those of a class that has one of the two
 * itself, while its bases have nothing of the other. */
static PyObject *make_instance(PyObject *object, PyObject *const *args, size_t flags, PyObject *names) {
    PyTypeObject *class = (PyTypeObject *)object;
    State *state = PyType_GetModuleState(class); /* NULL if the class is part of what is collected */
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    PyObject *init = NULL, *new = NULL, *made, *parts[1 + MOST];
    if (state != NULL && names == NULL && count <= MOST) {
        memcpy(parts + 1, args, count * sizeof(PyObject *));
        init = Py_XNewRef(PyDict_GetItemWithError(class->tp_dict, state->names.__init__));
        new = Py_XNewRef(PyDict_GetItemWithError(class->tp_dict, state->names.__new__));
    }
    if (init != NULL && class->tp_new == PyBaseObject_Type.tp_new &&
        (PyObject *)Py_TYPE(init) == state->Method) {
        made = make_by_init(class, init, parts, count + 1);
    } else if (init == NULL && new != NULL && class->tp_init == PyBaseObject_Type.tp_init &&
               Py_IS_TYPE(new, &PyStaticMethod_Type)) {
        made = make_by_new(class, new, parts, count + 1);
    } else {
        made = make_by_type(object, args, count, names);
    }
    Py_XDECREF(init);
    Py_XDECREF(new);
    return made;
}

/* make_directly(class): have a call of the class call its `__init__` in C, or its `__new__`, without the detour
 * by type.__call__, which takes as long again. Interpreters before 3.12 do not ask for it where the class has
 * a metaclass of its own. */
static PyObject *make_directly(PyObject *module, PyObject *object) {
    PyHeapTypeObject *class = (PyHeapTypeObject *)object;
    if (!PyType_Check(object) || !PyType_HasFeature((PyTypeObject *)object, Py_TPFLAGS_HEAPTYPE) ||
        class->ht_module != NULL) {
        PyErr_SetString(PyExc_TypeError, "expected a class that was written in Python");
        return NULL;
    }
    class->ht_module = Py_NewRef(module); /* by which make_instance() finds the state */
    class->ht_type.tp_vectorcall = make_instance;
    Py_RETURN_NONE;
}

/* --- binding to handoff.py ------------------------------------------------------------------------------ */

static int set_named(State *state, const char *name, PyObject **place) {
    PyObject *found = PyDict_GetItemString(state->namespace, name);
    Py_XSETREF(*place, Py_XNewRef(found));
    if (found == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_NameError, name);
    }
    return found == NULL ? -1 : 0;
}

/* Keep the descriptors of a seam's slots. */
static int set_slots(State *state) {
    PyObject *class = PyDict_GetItemString(state->namespace, "Seam"), *found;
    if (class == NULL) {
        PyErr_SetString(PyExc_NameError, "Seam");
        return -1;
    }
    Py_INCREF(class);
#define X(name) \
    found = PyObject_GetAttrString(class, #name); \
    Py_XSETREF(state->slots.name, found);
    SLOTS(X)
#undef X
    Py_DECREF(class);
    return PyErr_Occurred() ? -1 : 0;
}

/* Where `attach` is a method of a context variable, keep that variable. */
static void set_variable(State *state) {
    PyObject *owner = NULL;
    if (PyCFunction_Check(state->attach) && PyCFunction_Check(state->detach) &&
        PyCFunction_Check(state->get_current)) {
        owner = PyCFunction_GET_SELF(state->attach);
    }
    if (owner == NULL || !PyContextVar_CheckExact(owner) || PyCFunction_GET_SELF(state->detach) != owner ||
        PyCFunction_GET_SELF(state->get_current) != owner) {
        Py_CLEAR(state->variable);
    } else {
        Py_XSETREF(state->variable, Py_NewRef(owner));
    }
}

/* bind(namespace): work with what is in the namespace of handoff.py at present. */
static PyObject *bind(PyObject *module, PyObject *namespace) {
    State *state = PyModule_GetState(module);
    if (!PyDict_Check(namespace)) {
        PyErr_SetString(PyExc_TypeError, "expected a dictionary");
        return NULL;
    }
    Py_XSETREF(state->namespace, Py_NewRef(namespace));
#define X(name) \
    if (set_named(state, #name, &state->name) < 0) { \
        goto failed; \
    }
    OBJECTS(X)
#undef X
    set_variable(state);
    if (!PyContextVar_CheckExact(state->adopted) || !PyDict_Check(state->bodies) ||
        !PyDict_Check(state->ages) || !PyType_Check(state->Context)) {
        PyErr_SetString(PyExc_TypeError, "something else was expected in the namespace");
    } else if (set_slots(state) == 0 && make_class(module, state) == 0) {
        Py_RETURN_NONE;
    }
failed:
    Py_CLEAR(state->namespace); /* without it nothing can be called */
    return NULL;
}

static PyMethodDef functions[] = {
    {"bind", bind, METH_O, NULL},
    {"adopt", adopt, METH_O, NULL},
    {"adopt_or", (PyCFunction)(void (*)(void))adopt_or, METH_FASTCALL, NULL},
    {"method", method, METH_VARARGS, NULL},
    {"make_directly", make_directly, METH_O, NULL},
    {"begins", (PyCFunction)(void (*)(void))begins, METH_FASTCALL, NULL},
    {"arrived", (PyCFunction)(void (*)(void))arrived, METH_FASTCALL, NULL},
    {"known_trailer", (PyCFunction)(void (*)(void))known_trailer, METH_FASTCALL, NULL},
    {"begin_collection", (PyCFunction)(void (*)(void))begin_collection, METH_FASTCALL, NULL},
    {"end_collection", (PyCFunction)(void (*)(void))end_collection, METH_FASTCALL, NULL},
    {"is_collecting", is_collecting, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int find_deque(State *state) {
    PyObject *collections = PyImport_ImportModule("collections");
    state->deque = collections == NULL ? NULL : PyObject_GetAttrString(collections, "deque");
    Py_XDECREF(collections);
    if (state->deque == NULL || !PyType_Check(state->deque) ||
        (state->append = PyObject_GetAttrString(state->deque, "append")) == NULL ||
        (state->pop = PyObject_GetAttrString(state->deque, "pop")) == NULL) {
        return -1;
    }
    state->popleft = PyObject_GetAttrString(state->deque, "popleft");
    return state->popleft == NULL ? -1 : 0;
}

static int prepare(PyObject *module) {
    State *state = PyModule_GetState(module);
#define X(name) \
    if ((state->names.name = PyUnicode_InternFromString(#name)) == NULL) { \
        return -1; \
    }
    NAMES(X)
#undef X
    if ((state->empty = PyTuple_New(0)) == NULL || find_deque(state) < 0) {
        return -1;
    }
    state->Method = PyType_FromModuleAndSpec(module, &spec_of_method, NULL);
    if (state->Method == NULL || PyModule_AddType(module, (PyTypeObject *)state->Method) < 0) {
        return -1;
    }
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    State *state = PyModule_GetState(module);
#define X(name) Py_VISIT(state->name);
    REFERENCES(X)
#undef X
#define X(name) Py_VISIT(state->slots.name);
    SLOTS(X)
#undef X
    return 0;
}

static int clear(PyObject *module) {
    State *state = PyModule_GetState(module);
#define X(name) Py_CLEAR(state->name);
    REFERENCES(X)
#undef X
#define X(name) Py_CLEAR(state->slots.name);
    SLOTS(X)
#undef X
    return 0;
}

static void release(void *module) {
    State *state = PyModule_GetState(module);
    clear(module);
#define X(name) Py_CLEAR(state->names.name);
    NAMES(X)
#undef X
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, prepare},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "otel_concurrency._core._compiled",
    .m_doc = "The compiled part of the hot path; see compiled.py.",
    .m_size = sizeof(State),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__compiled(void) {
    return PyModuleDef_Init(&definition);
}
