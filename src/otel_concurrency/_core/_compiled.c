/* The compiled part of the hot path: what a hand-off costs around the program's own call.
 *
 * Each function here, but those of collections, has its twin in pure Python, in handoff.py and in
 * files of _items and _primitives, and does the same, step by step. compiled.py chooses which of the two
 * is used. The functions of pools stay Python functions, which call these: their frames are looked for,
 * and are in tracebacks. Methods of queues, of futures and of events are objects that call C directly.
 *
 * What handoff.py calls `attach`, `detach`, `get_current`, ... is bound when it calls bind(), and again
 * when a test calls that, which has replaced one. Where they are the methods of a context variable,
 * the variable is used directly.
 *
 * Rules: no borrowed reference is held over a call that can run Python code. An exception that is
 * no `Exception`, such as KeyboardInterrupt, is never swallowed. The context is detached whatever
 * the program's call raises. All state belongs to the module, and so to one interpreter.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#ifndef MS_WINDOWS
#include <poll.h>
#endif

#define INTERFACE 6 /* compiled.py has the same number; a module of another is not used */

/* --- what older versions lack ------------------------------------------------------------------ */

#if PY_VERSION_HEX < 0x030C0000
static PyObject *PyErr_GetRaisedException(void) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    if (type == NULL) {
        return NULL;
    }
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
        Py_DECREF(traceback);
    }
    Py_DECREF(type);
    return error;
}

static void PyErr_SetRaisedException(PyObject *error) {
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(error)), error, PyException_GetTraceback(error));
}
#endif

#if PY_VERSION_HEX < 0x030D0000
static int PyWeakref_GetRef(PyObject *reference, PyObject **object) {
    PyObject *found = PyWeakref_GetObject(reference);
    if (found == NULL) {
        *object = NULL;
        return -1;
    }
    *object = found == Py_None ? NULL : Py_NewRef(found);
    return *object != NULL;
}

static int PyDict_GetItemRef(PyObject *dict, PyObject *key, PyObject **value) {
    *value = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *value != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
}
#endif

/* --- the module's state ------------------------------------------------------------------------ */

/* Names of attributes. */
#define NAMES(X) \
    X(_result) X(future) X(find) X(__module__) X(_end_time) \
    X(_otel_concurrency_pairs) X(pop) X(popleft) X(to_pass) X(descriptor) X(first) X(gave_contexts) \
    X(loans) X(settled) X(_encoded) X(_decoded) X(get_global_textmap)

/* Slots of a seam. */
#define SLOTS(X) X(capture) X(current) X(change)

/* Objects of handoff.py. */
#define OBJECTS(X) \
    X(adopted) X(bodies) X(ages) X(Context) X(FRESH) X(SEVERAL) X(NO_CONTEXT) X(Call) X(capture) \
    X(capture_nothing) X(get_current) X(attach) X(detach) X(get_ident) X(report_raised)

typedef struct {
    int has_adopted;     /* whether handoff.py was told that a flow has adopted something */
    PyObject *namespace; /* of handoff.py; NULL until it calls bind() */
    PyObject *variable;  /* that of which `attach` is a method, or NULL */
    PyObject *twin;      /* `adopt` of adoption.py */
    PyObject *span_key;  /* the key of a context's span */
    PyObject *invalid;   /* the span that stands for none */
    PyObject *token;     /* of what the collection that is running has attached, or NULL */
    PyObject *record;    /* what the flow had adopted when it began, or NULL */
    PyObject *empty;     /* a tuple */
    PyObject *deque;     /* the class of the pairs beside most queues, and its methods */
    PyObject *append, *pop, *popleft;
    PyObject *Method;    /* the class of what method() returns */
    PyObject *DirectCall;
#define X(name) PyObject *name;
    OBJECTS(X)
#undef X
    struct {
#define X(name) PyObject *name;
        NAMES(X)
#undef X
    } names;
    struct {
#define X(name) PyObject *name;
        SLOTS(X)
#undef X
    } slots; /* their descriptors */
} State;

/* All that a collection has to know. */
#define REFERENCES(X) \
    X(namespace) X(variable) X(twin) X(span_key) X(invalid) X(token) X(record) X(empty) X(deque) \
    X(append) X(pop) X(popleft) X(Method) X(DirectCall) OBJECTS(X)

/* Call a function of handoff.py, with an argument or NULL. */
static PyObject *call(PyObject *function, PyObject *argument) {
    PyObject *result;
    if (function == NULL) { /* the interpreter is ending */
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return NULL;
    }
    Py_INCREF(function);
    result = argument == NULL ? PyObject_CallNoArgs(function) : PyObject_CallOneArg(function, argument);
    Py_DECREF(function);
    return result;
}

/* --- the current context ----------------------------------------------------------------------- */

static PyObject *get_current(State *state) {
    PyObject *context = NULL;
    if (state->variable == NULL) {
        return call(state->get_current, NULL);
    }
    if (PyContextVar_Get(state->variable, NULL, &context) == 0 && context == NULL) {
        PyErr_SetObject(PyExc_LookupError, state->variable);
    }
    return context;
}

static PyObject *attach(State *state, PyObject *context) {
    return state->variable == NULL ? call(state->attach, context)
                                   : PyContextVar_Set(state->variable, context);
}

static int detach(State *state, PyObject *token) {
    PyObject *nothing;
    if (state->variable != NULL) {
        return PyContextVar_Reset(state->variable, token);
    }
    nothing = call(state->detach, token);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* --- faults ------------------------------------------------------------------------------------ */

/* Report the raised exception as a fault of the library, and clear it. Where it is no `Exception`,
 * it is put in `interrupt` instead, to be raised when the context is detached. */
static void report(State *state, const char *step, PyObject **interrupt) {
    PyObject *error, *function, *reported;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        error = PyErr_GetRaisedException();
        function = Py_XNewRef(state->report_raised);
        reported = function == NULL ? NULL : PyObject_CallFunction(function, "sO", step, error);
        Py_XDECREF(function);
        Py_DECREF(error);
        Py_XDECREF(reported);
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear(); /* it cannot be reported */
            return;
        }
    }
    error = PyErr_GetRaisedException();
    Py_XSETREF(*interrupt, error);
}

/* Return what the program's call has returned, or raise again what it has `raised`. An `interrupt`
 * of the library's own steps replaces both. */
static PyObject *outcome(PyObject *result, PyObject *raised, PyObject *interrupt) {
    if (interrupt != NULL) {
        Py_XDECREF(result);
        if (raised != NULL) {
            PyException_SetContext(interrupt, raised);
        }
        PyErr_SetRaisedException(interrupt);
        return NULL;
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return result;
}

/* --- what the flow has adopted ------------------------------------------------------------------ */

/* Set `record` to what the flow has adopted, or to None. */
static int get_adopted(State *state, PyObject **record) {
    *record = NULL;
    if (state->adopted == NULL) {
        call(NULL, NULL);
        return -1;
    }
    return PyContextVar_Get(state->adopted, NULL, record);
}

static int set_adopted(State *state, PyObject *record) {
    PyObject *token = PyContextVar_Set(state->adopted, record);
    Py_XDECREF(token);
    return token == NULL ? -1 : 0;
}

/* --- the body of a thread ----------------------------------------------------------------------- */

static int forget_age(State *state, PyObject *thread) {
    int known = PyDict_GET_SIZE(state->ages) == 0 ? 0 : PyDict_Contains(state->ages, thread);
    return known <= 0 ? known : PyDict_DelItem(state->ages, thread);
}

/* Note that `context` is what the thread's present work was handed off in. Set `thread` to the key,
 * and `body` to what was there before, or NULL. */
static int begin_body(State *state, PyObject *context, PyObject **thread, PyObject **body) {
    *thread = call(state->get_ident, NULL);
    if (*thread == NULL || state->bodies == NULL ||
        (PyDict_GET_SIZE(state->bodies) != 0 &&
         PyDict_GetItemRef(state->bodies, *thread, body) < 0) ||
        PyDict_SetItem(state->bodies, *thread, context) < 0) {
        return -1;
    }
    return forget_age(state, *thread);
}

static int end_body(State *state, PyObject *thread, PyObject *body) {
    if (state->bodies == NULL) { /* the interpreter is ending */
        return 0;
    }
    if (forget_age(state, thread) < 0) {
        return -1;
    }
    if (body != NULL) {
        return PyDict_SetItem(state->bodies, thread, body);
    }
    if (PyDict_DelItem(state->bodies, thread) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_KeyError)) {
            return -1;
        }
        PyErr_Clear(); /* this is the child of a fork, which forgets them */
    }
    return 0;
}

/* --- the work item of a thread pool ------------------------------------------------------------- */

typedef struct {
    PyObject *before; /* the context of the worker */
    PyObject *token, *thread, *body;
} Turn;

/* Take the context out of the future of `item`, and attach it. */
static int pick_up(State *state, PyObject *item, Turn *turn) {
    PyObject *future, *context;
    int status = 0;
    turn->before = get_current(state);
    future = turn->before == NULL ? NULL : PyObject_GetAttr(item, state->names.future);
    context = future == NULL ? NULL : PyObject_GetAttr(future, state->names._result);
    if (context == NULL) {
        status = -1;
    } else if (PyObject_TypeCheck(context, (PyTypeObject *)state->Context)) {
        /* otherwise the future was cancelled or completed */
        status = PyObject_SetAttr(future, state->names._result, Py_None);
        turn->token = status < 0 ? NULL : attach(state, context);
        status = turn->token == NULL ? -1 : begin_body(state, context, &turn->thread, &turn->body);
    }
    Py_XDECREF(context);
    Py_XDECREF(future);
    return status;
}

/* Go back to the `record` of what the flow had adopted, and to its context. What an item that came
 * without a context has attached is removed as well. */
static void leave(State *state, PyObject *record, Turn *turn, PyObject **interrupt) {
    PyObject *now, *token = NULL;
    int status = get_adopted(state, &now);
    Py_XDECREF(now); /* only which it is matters */
    if (status < 0 || (record != NULL && now != record && set_adopted(state, record) < 0)) {
        report(state, "detach", interrupt);
    }
    status = 0;
    if (turn->token != NULL) {
        status = detach(state, turn->token);
    } else if (turn->before != NULL) {
        now = get_current(state);
        Py_XDECREF(now);
        token = now == NULL || now == turn->before ? NULL : attach(state, turn->before);
        Py_XDECREF(token);
    }
    if (status < 0 || (token == NULL && PyErr_Occurred())) {
        report(state, "detach", interrupt);
    }
}

/* Leave what a turn has begun, of which this takes the references, and return the outcome(). */
static PyObject *end_turn(State *state, PyObject *record, Turn *turn, PyObject *result,
                          PyObject *interrupt) {
    PyObject *raised = PyErr_GetRaisedException();
    if (turn->thread != NULL && end_body(state, turn->thread, turn->body) < 0) {
        report(state, "detach", &interrupt);
    }
    leave(state, record, turn, &interrupt);
    Py_XDECREF(record);
    Py_XDECREF(turn->before);
    Py_XDECREF(turn->token);
    Py_XDECREF(turn->thread);
    Py_XDECREF(turn->body);
    return outcome(result, raised, interrupt);
}

/* --- a call that carries a context --------------------------------------------------------------- */

/* An instance of DirectCall, a subclass of handoff.py's Call. */
typedef struct {
    PyObject_HEAD
    PyObject *context, *function; /* the slots of Call */
    vectorcallfunc vectorcall;
    Py_ssize_t running; /* how many calls of it have not returned yet */
} DirectCall;

/* Attach `context`, unless it is current, or both are empty. Where it is what the flow has in its
 * `record`, the call does not see that: the flow lets go of it when the call is over. */
static int begin_call(State *state, PyObject *context, PyObject *record, Turn *turn) {
    PyObject *adopted = NULL;
    int status;
    if (context == NULL || context == Py_None) {
        return 0;
    }
    turn->before = get_current(state);
    status = turn->before == NULL ? -1 : turn->before == context ? 0 : PyObject_IsTrue(context);
    if (status == 0 && turn->before != context) {
        status = PyObject_IsTrue(turn->before);
    }
    if (status < 0 || (status > 0 && (turn->token = attach(state, context)) == NULL)) {
        return -1;
    }
    status = 0;
    if (record != NULL && PyList_CheckExact(record) && PyWeakref_Check(PyList_GET_ITEM(record, 0))) {
        status = PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &adopted);
    }
    status = status > 0 && adopted == context ? set_adopted(state, Py_None) : status;
    Py_XDECREF(adopted);
    return status;
}

/* Call the function in the context, the first time; later without one. */
static PyObject *call_direct(PyObject *object, PyObject *const *args, size_t flags, PyObject *names) {
    DirectCall *self = (DirectCall *)object;
    State *state = PyType_GetModuleState(Py_TYPE(object));
    PyObject *context = self->context, *function = Py_XNewRef(self->function);
    PyObject *record, *result = NULL, *interrupt = NULL;
    Turn turn = {NULL, NULL, NULL, NULL};
    self->context = Py_NewRef(Py_None);
    if (get_adopted(state, &record) < 0 || begin_call(state, context, record, &turn) < 0) {
        report(state, "attach", &interrupt);
    }
    Py_XDECREF(context);
    if (interrupt == NULL) {
        self->running++;
        result = PyObject_Vectorcall(function == NULL ? Py_None : function, args, flags, names);
        self->running--;
    }
    Py_XDECREF(function);
    return end_turn(state, record, &turn, result, interrupt);
}

/* DirectCall(context, function) */
static PyObject *make_direct(PyObject *type, PyObject *const *args, size_t flags, PyObject *names) {
    DirectCall *made = NULL;
    if (PyVectorcall_NARGS(flags) != 2 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "expected a context and a function");
    } else if ((made = (DirectCall *)PyType_GenericAlloc((PyTypeObject *)type, 0)) != NULL) {
        made->context = Py_NewRef(args[0]);
        made->function = Py_NewRef(args[1]);
        made->vectorcall = call_direct;
    }
    return (PyObject *)made;
}

static PyObject *new_direct(PyTypeObject *type, PyObject *args, PyObject *names) {
    return make_direct((PyObject *)type, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args), names);
}

static PyMemberDef members_of_direct[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(DirectCall, vectorcall), READONLY, NULL},
    {"running", T_PYSSIZET, offsetof(DirectCall, running), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots_of_direct[] = {
    {Py_tp_new, new_direct}, /* with it no interpreter takes a short cut to Call.__init__ */
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, members_of_direct},
    {0, NULL},
};

static PyType_Spec spec_of_direct = {
    .name = "otel_concurrency._core._compiled.DirectCall",
    .basicsize = sizeof(DirectCall),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = slots_of_direct,
};

/* Let the class have the property of that name that Call has, in place of an attribute of its own. */
static int set_property(PyObject *class, PyObject *base, const char *name) {
    PyObject *property = Py_XNewRef(PyDict_GetItemString(((PyTypeObject *)base)->tp_dict, name));
    int status = property == NULL ? 0 : PyObject_SetAttrString(class, name, property);
    Py_XDECREF(property);
    return status;
}

/* Make the class DirectCall, once. */
static int make_class(PyObject *module, State *state) {
    PyTypeObject *base = (PyTypeObject *)state->Call;
    if (state->DirectCall != NULL) {
        return 0;
    }
    if (!PyType_Check(base) || base->tp_basicsize != offsetof(DirectCall, vectorcall)) {
        PyErr_SetString(PyExc_TypeError, "something else was expected of Call");
    } else {
        state->DirectCall = PyType_FromModuleAndSpec(module, &spec_of_direct, state->Call);
    }
    if (state->DirectCall == NULL) {
        return -1;
    }
    if (set_property(state->DirectCall, state->Call, "__doc__") < 0 ||
        set_property(state->DirectCall, state->Call, "__module__") < 0) {
        return -1;
    }
    ((PyTypeObject *)state->DirectCall)->tp_vectorcall = make_direct;
    return PyModule_AddType(module, (PyTypeObject *)state->DirectCall);
}

/* --- adopting the context of an item ------------------------------------------------------------ */

/* What adopt_plainly() returns beside -1, after a fault. */
enum { ADOPTED, NOT_PLAIN, BUSY };

/* Have the flow be in its `record` again, or in none, where attaching `context` has failed. */
static void take_back(State *state, PyObject *context, PyObject *record) {
    PyObject *error = PyErr_GetRaisedException(), *current;
    int can_go_on = PyErr_GivenExceptionMatches(error, PyExc_Exception);
    current = can_go_on ? get_current(state) : NULL;
    if (current != NULL && current != context) {
        set_adopted(state, record == NULL ? Py_None : record);
    }
    Py_XDECREF(current);
    if (PyErr_Occurred()) {
        Py_DECREF(error);
    } else {
        PyErr_SetRaisedException(error);
    }
}

/* Have the flow adopt `context`, in the place of what it has in its `record`, or above `current`. */
static int begin_adoption(State *state, PyObject *context, PyObject *record, PyObject *current,
                          PyObject *stage, PyObject *batch) {
    PyObject *reference, *made, *token = NULL;
    if (!state->has_adopted && PyDict_SetItemString(state->namespace, "any_adopted", Py_True) < 0) {
        return -1;
    }
    state->has_adopted = 1;
    reference = PyWeakref_NewRef(context, NULL);
    made = reference == NULL ? NULL : PyList_New(5);
    if (made != NULL) {
        PyList_SET_ITEM(made, 0, Py_NewRef(reference));
        PyList_SET_ITEM(made, 1, Py_NewRef(record == NULL ? current : PyList_GET_ITEM(record, 1)));
        PyList_SET_ITEM(made, 2, Py_NewRef(record == NULL ? state->empty : PyList_GET_ITEM(record, 2)));
        PyList_SET_ITEM(made, 3, Py_NewRef(stage));
        PyList_SET_ITEM(made, 4, Py_NewRef(batch));
    }
    if (made != NULL && set_adopted(state, made) == 0 && (token = attach(state, context)) == NULL) {
        take_back(state, context, record);
    }
    Py_XDECREF(reference);
    Py_XDECREF(made);
    Py_XDECREF(token);
    return token == NULL ? -1 : ADOPTED;
}

static int at_stage(PyObject *record, PyObject *stage) {
    return PyList_SetItem(record, 3, Py_NewRef(stage)) < 0 ? -1 : ADOPTED;
}

/* The same, where the flow has several items, one of which had this context. */
static int adopt_in_batch(State *state, PyObject *context, PyObject *record) {
    PyObject *batch = Py_NewRef(PyList_GET_ITEM(record, 4)), *key = PyLong_FromVoidPtr(context);
    PyObject *found = key == NULL ? NULL : PyObject_CallMethodOneArg(batch, state->names.find, key);
    PyObject *known = NULL;
    int status = found == NULL ? -1 : NOT_PLAIN;
    if (found != NULL && PyWeakref_Check(found) && PyWeakref_GetRef(found, &known) < 0) {
        status = -1;
    } else if (known == context) {
        status = begin_adoption(state, context, record, NULL, state->SEVERAL, batch);
    }
    Py_XDECREF(known);
    Py_XDECREF(found);
    Py_XDECREF(key);
    Py_DECREF(batch);
    return status;
}

/* Whether a flow's record is what adoption.py makes. */
static int is_record(PyObject *record) {
    return PyList_CheckExact(record) && PyList_GET_SIZE(record) == 5 &&
           PyWeakref_Check(PyList_GET_ITEM(record, 0)) && PyLong_Check(PyList_GET_ITEM(record, 3));
}

/* The same as adopt_plainly(), of a flow that has a `record`. */
static int adopt_again(State *state, PyObject *context, PyObject *current, PyObject *record) {
    PyObject *known, *token;
    int status, was_known;
    long stage;
    if (!is_record(record)) {
        return NOT_PLAIN;
    }
    if (PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &known) < 0) {
        return -1;
    }
    was_known = known == context; /* neither goes away meanwhile: both are held by callers */
    if (known == current) {
        if (was_known) {
            Py_DECREF(known);
            return at_stage(record, state->SEVERAL);
        }
        if (PyList_GET_ITEM(record, 4) != Py_None) {
            Py_DECREF(known);
            return adopt_in_batch(state, context, record);
        }
        stage = PyLong_AsLong(PyList_GET_ITEM(record, 3));
        if (PyErr_Occurred() || stage <= 0) {
            Py_DECREF(known);
            PyErr_Clear();
            return NOT_PLAIN; /* this may become a batch */
        }
    } else if (current != PyList_GET_ITEM(record, 1)) {
        Py_XDECREF(known);
        return NOT_PLAIN; /* another context is on top */
    } else if (was_known) { /* the flow has let go since, and gets another item of the same context */
        Py_DECREF(known);
        token = attach(state, context);
        Py_XDECREF(token);
        return token == NULL ? -1 : at_stage(record, state->FRESH);
    }
    Py_XDECREF(known);
    status = PyObject_IsTrue(PyList_GET_ITEM(record, 1));
    if (status != 0) {
        return status < 0 ? -1 : NOT_PLAIN; /* the item may be a stranger's */
    }
    return begin_adoption(state, context, record, NULL, state->FRESH, Py_None);
}

/* Whether a flow that has adopted nothing has a span of its own in `current`, which is in progress. */
static int find_out_whether_busy(State *state, PyObject *current) {
    PyObject *thread = NULL, *found = NULL, *end;
    int status = PyDict_Check(current) && state->span_key != NULL && state->bodies != NULL;
    if (status > 0 && PyDict_GET_SIZE(state->bodies) != 0) {
        thread = call(state->get_ident, NULL);
        status = thread == NULL ? -1 : PyDict_GetItemRef(state->bodies, thread, &found) >= 0;
        status = status > 0 ? found != current : status; /* it was handed off with the thread's work */
        Py_XDECREF(thread);
        Py_CLEAR(found);
    }
    if (status > 0) {
        status = PyDict_GetItemRef(current, state->span_key, &found);
    }
    if (status > 0 && found != state->invalid) {
        end = PyObject_GetAttr(found, state->names._end_time);
        status = end == NULL ? -1 : end == Py_None ? BUSY : 0;
        Py_XDECREF(end);
        if (end == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear(); /* it is no span of the SDK */
            status = 0;
        }
    }
    Py_XDECREF(found);
    return status < 0 ? -1 : status == BUSY ? BUSY : NOT_PLAIN;
}

/* Do what `adopt` of adoption.py does with a context that is not empty, in the cases that are usual.
 * In any other, do nothing, and return NOT_PLAIN: that function is to be called. */
static int adopt_plainly(State *state, PyObject *context) {
    PyObject *current = get_current(state), *record;
    int status;
    if (current == NULL) {
        return -1;
    }
    if (get_adopted(state, &record) < 0) {
        Py_DECREF(current);
        return -1;
    }
    if (record != NULL && record != Py_None) {
        status = adopt_again(state, context, current, record);
    } else {
        status = PyObject_IsTrue(current);
        if (status > 0) {
            status = find_out_whether_busy(state, current);
        } else if (status == 0) {
            status = begin_adoption(state, context, NULL, current, state->FRESH, Py_None);
        }
    }
    Py_XDECREF(record);
    Py_DECREF(current);
    return status;
}

/* Have the flow adopt a context. Return whether the flow is busy. */
static int adopt_context(State *state, PyObject *context) {
    PyObject *busy;
    int status = PyObject_IsTrue(context);
    status = status > 0 ? adopt_plainly(state, context) : status < 0 ? -1 : NOT_PLAIN;
    if (status != NOT_PLAIN) {
        return status < 0 ? -1 : status == BUSY;
    }
    busy = call(state->twin, context);
    status = busy == NULL ? -1 : PyObject_IsTrue(busy);
    Py_XDECREF(busy);
    return status;
}

/* --- methods that the program sees ---------------------------------------------------------------- */

/* The method of a class that the program sees. It does by its C function what is usual, and leaves to
 * its twin what is not. In all that can be read from it or set it is its twin: a function in Python. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    const struct Usual *usual;
    PyObject *parts; /* a tuple: never changed, and so no part of a cycle of its own making */
    PyObject *weak_references;
} Method;

/* What is in that tuple: the kind, the twin, the plain method or what it calls, and more. */
enum { KIND, TWIN, SEAM, PLAIN, MARK, DELIVER, LEND, EMPTY, LOANS, SETTLED_LOANS, LOANS_TO_PASS };
enum { CONTAINER = SEAM, PAIRS = MARK, FAULT = EMPTY, OWNER, PAIRS_LOANS, SETTLED, HAS_GIVEN, TO_PASS,
       UNKNOWN, REPEATED, CONTEXTS, HELD }; /* of the hooks of queues; the last are descriptors of slots */
enum { UNPAIRED = MARK, LOOP = MARK, STOCK = MARK, ASKED };
#define PART(method, number) PyTuple_GET_ITEM((method)->parts, number)

/* What a method of a kind does where all is usual. */
struct Usual {
    const char *kind;
    Py_ssize_t parts, least, most; /* how many arguments are usual, with the object */
    /* Returns NULL without an exception where it has done nothing, since something is not usual. */
    PyObject *(*run)(State *, Method *, PyObject *const *args, Py_ssize_t count);
};

/* Nothing was done: leave the call, and a fault so far, to the twin. */
static PyObject *leave_to_twin(void) {
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
    return NULL;
}

/* Read a slot of an object, whose class has `descriptor` for it. */
static PyObject *read_slot(PyObject *object, PyObject *descriptor) {
    PyMemberDef *member;
    PyObject *value = NULL;
    if (descriptor == NULL || !Py_IS_TYPE(descriptor, &PyMemberDescr_Type) ||
        !PyObject_TypeCheck(object, PyDescr_TYPE(descriptor))) {
        PyErr_SetString(PyExc_TypeError, "expected an object with the slot");
        return NULL;
    }
    member = ((PyMemberDescrObject *)descriptor)->d_member;
    if (member->type == T_OBJECT_EX) {
        value = Py_XNewRef(*(PyObject **)((char *)object + member->offset));
    }
    return value != NULL ? value : PyMember_GetOne((const char *)object, member);
}

/* Whether a slot has what is `wanted` in it. */
static int is_same(PyObject *object, PyObject *descriptor, PyObject *wanted) {
    PyObject *value = read_slot(object, descriptor);
    Py_XDECREF(value);
    return value == NULL ? -1 : value == wanted;
}

/* Whether all is known of what comes back to a queue (1), or nothing yet (0); else more is noted (2). */
static int loans_of(Method *self, PyObject *queue) {
    PyObject *loans = read_slot(queue, PART(self, LOANS));
    int status = loans == NULL ? -1 : loans == Py_None ? 1 : 2 * PyObject_IsTrue(loans);
    Py_XDECREF(loans);
    return status;
}

/* put(self, item, block=True, timeout=None) */
static PyObject *put_simple(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *call[4] = {args[0]}, *function, *context, *stored = NULL, *nothing;
    int holds, loans, off = 0;
    function = read_slot(PART(self, SEAM), state->slots.current);
    if (function == NULL) {
        return leave_to_twin();
    }
    context = function == state->get_current ? get_current(state) : NULL; /* the twin calls others */
    Py_DECREF(function);
    holds = context == NULL ? -1 : PyObject_IsTrue(context);
    loans = holds < 0 ? -1 : loans_of(self, args[0]);
    if (holds > 0 && loans == 1) {
        off = is_same(PART(self, SEAM), state->slots.capture, state->capture_nothing);
        stored = off ? NULL : PyTuple_Pack(3, PART(self, MARK), args[1], context);
    } else if (holds == 0 && (loans == 0 || loans == 1)) {
        stored = Py_NewRef(args[1]);
    }
    Py_XDECREF(context);
    if (stored == NULL) {
        return leave_to_twin();
    }
    for (Py_ssize_t number = 2; number < count; number++) {
        call[number] = args[number];
    }
    call[1] = stored;
    nothing = PyObject_Vectorcall(PART(self, PLAIN), call, count, NULL);
    Py_DECREF(stored);
    return nothing;
}

/* Whether `context`, in which an item was stored or NULL, is all that matters in handing it over. */
static int is_plain(State *state, Method *self, PyObject *queue, PyObject *context, int has_adopted) {
    int status;
    if (has_adopted || context != NULL) {
        status = is_same(PART(self, SEAM), state->slots.capture, state->capture_nothing);
        if (status != 0) {
            return status < 0 ? -1 : 0;
        }
    }
    if (context != NULL) {
        return is_same(PART(self, SEAM), state->slots.change, Py_None);
    }
    context = get_current(state);
    status = context == NULL ? -1 : PyObject_IsTrue(context);
    Py_XDECREF(context);
    if (status == 0) {
        status = loans_of(self, queue);
        return status < 0 ? -1 : status != 2;
    }
    return status < 0 ? -1 : 0;
}

/* Whether an item need not be noted, of which a flow with a span of its own has taken some more. */
static int is_passed(State *state, PyObject *loans, PyObject *descriptor) {
    PyObject *left = read_slot(loans, descriptor), *less = NULL;
    long number = left == NULL ? 0 : PyLong_AsLong(left);
    Py_XDECREF(left);
    if (number > 0 && (less = PyLong_FromLong(number - 1)) != NULL) {
        PyObject_SetAttr(loans, state->names.to_pass, less);
    }
    Py_XDECREF(less);
    return PyErr_Occurred() ? -1 : number > 0;
}

/* The same of a SimpleQueue, where it is known that it hands work on. */
static int is_passed_by(State *state, Method *self, PyObject *queue) {
    PyObject *loans;
    int status = loans_of(self, queue);
    if (status != 1) {
        return status < 0 ? -1 : 0;
    }
    loans = read_slot(queue, PART(self, SETTLED_LOANS));
    status = loans == NULL ? -1 : is_passed(state, loans, PART(self, LOANS_TO_PASS));
    Py_XDECREF(loans);
    return status;
}

/* Return the item in what was `stored`, of which this takes the reference, and adopt its context. */
static PyObject *deliver(State *state, Method *self, PyObject *queue, PyObject *stored, int has_adopted) {
    PyObject *item = stored, *context = NULL, *nothing, *interrupt = NULL;
    Py_ssize_t size = PyTuple_CheckExact(stored) ? PyTuple_GET_SIZE(stored) : 0;
    int status;
    if (size == 3 && PyTuple_GET_ITEM(stored, 0) == PART(self, MARK)) {
        item = PyTuple_GET_ITEM(stored, 1);
        context = PyTuple_GET_ITEM(stored, 2);
    }
    status = size == 4 ? 0 : is_plain(state, self, queue, context, has_adopted);
    if (status == 0) {
        item = PyObject_CallFunctionObjArgs(PART(self, DELIVER), queue, stored, NULL);
        Py_DECREF(stored);
        return item;
    }
    if (status > 0 && context != NULL) {
        status = adopt_context(state, context);
        if (status > 0 && (status = is_passed_by(state, self, queue)) == 0) {
            nothing = PyObject_CallFunctionObjArgs(PART(self, LEND), queue, item, context, NULL);
            status = nothing == NULL ? -1 : 0;
            Py_XDECREF(nothing);
        }
    }
    if (status < 0) {
        report(state, "get", &interrupt);
    }
    Py_INCREF(item);
    Py_DECREF(stored);
    return outcome(item, NULL, interrupt);
}

/* get(self), which waits for ever. */
static PyObject *get_simple(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *call[2] = {args[0], Py_False}, *record, *stored;
    int has_adopted;
    if (get_adopted(state, &record) < 0) {
        return leave_to_twin();
    }
    has_adopted = record != NULL && record != Py_None;
    Py_XDECREF(record);
    stored = PyObject_Vectorcall(PART(self, PLAIN), call, has_adopted ? 2 : count, NULL);
    if (stored != NULL) {
        return deliver(state, self, args[0], stored, has_adopted);
    }
    if (has_adopted && PyErr_ExceptionMatches(PART(self, EMPTY))) {
        PyErr_Clear(); /* the twin lets go, and waits */
    }
    return NULL;
}

/* add_done_callback(self, fn) of a future */
static PyObject *add_callback(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *call[2] = {args[0]}, *context = NULL, *module = NULL, *nothing;
    int status = is_same(PART(self, SEAM), state->slots.capture, state->capture);
    if (status > 0 && (PyObject *)Py_TYPE(args[0]) == PART(self, STOCK) && PyCallable_Check(args[1]) &&
        !PyObject_TypeCheck(args[1], (PyTypeObject *)state->Call)) {
        module = PyObject_GetAttr(args[1], state->names.__module__);
    }
    if (module != NULL && PyUnicode_Check(module)) {
        if (PyUnicode_CompareWithASCIIString(module, "asyncio.futures") == 0) {
            Py_DECREF(module); /* asyncio's own, which has no work to do */
            return PyObject_Vectorcall(PART(self, PLAIN), args, count, NULL);
        }
        context = get_current(state);
    }
    Py_XDECREF(module);
    status = context == NULL ? -1 : PyObject_IsTrue(context);
    if (status >= 0) {
        PyObject *parts[2] = {status ? context : state->NO_CONTEXT, args[1]};
        call[1] = make_direct(state->DirectCall, parts, 2, NULL);
    }
    Py_XDECREF(context);
    if (call[1] == NULL) {
        return leave_to_twin();
    }
    nothing = PyObject_Vectorcall(PART(self, PLAIN), call, count, NULL);
    Py_DECREF(call[1]);
    return nothing;
}

/* __iter__(self) of an event of sched, which the loop takes apart to run its action */
static PyObject *iterate(State *state, Method *self, PyObject *const *args, Py_ssize_t Py_UNUSED(count)) {
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    PyObject *code = frame == NULL ? NULL : (PyObject *)PyFrame_GetCode(frame), *context;
    int status = code != PART(self, LOOP) || !PyTuple_Check(args[0]) || PyTuple_GET_SIZE(args[0]) < 4;
    Py_XDECREF(code);
    Py_XDECREF(frame);
    status = status != 0 ? status : PyObject_IsTrue(PART(self, ASKED));
    if (status == 0 && (PyObject *)Py_TYPE(PyTuple_GET_ITEM(args[0], 3)) != state->DirectCall) {
        context = get_current(state); /* in which an action without one would run */
        status = context == NULL ? -1 : PyObject_IsTrue(context);
        Py_XDECREF(context);
    }
    return status == 0 ? PyTuple_Type.tp_iter(args[0]) : leave_to_twin();
}

/* --- the hooks of queues -------------------------------------------------------------------------- */

/* `_put` and `_get` of the stock queues do what their twins do with a queue whose pairs are known by heart,
 * or that has none and needs none. That is found out before the queue is touched; all else is left to the
 * twin. The pairs of a queue in order are a deque: item, context, item, context, ... Those of a
 * PriorityQueue are a dictionary: of an item's id, its context. */
enum Order { FIRST, LAST, LEAST }; /* which item comes out */

/* What such a method works with; each is NULL until it is known. */
typedef struct {
    PyObject *container, *pairs, *loans;
} Held;

static void drop(Held *held) {
    Py_XDECREF(held->container);
    Py_XDECREF(held->pairs);
    Py_XDECREF(held->loans);
}

/* Call a method of deque, where `argument` may be NULL. */
static PyObject *call_deque(PyObject *method, PyObject *deque, PyObject *argument) {
    PyObject *args[2] = {deque, argument};
    return PyObject_Vectorcall(method, args, argument == NULL ? 1 : 2, NULL);
}

static int append(State *state, PyObject *deque, PyObject *object) {
    PyObject *nothing = call_deque(state->append, deque, object);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

static int is_true(PyObject *object, PyObject *descriptor) {
    PyObject *value = read_slot(object, descriptor);
    int status = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return status;
}

/* Find out what a queue holds. Return whether its pairs are known by heart (1), or there is nothing to do
 * but what the plain method does (0). */
static int look_at(State *state, Method *self, PyObject *queue, enum Order order, int puts, Held *held) {
    PyObject *context;
    int status;
    held->container = PyObject_GetAttr(queue, PART(self, CONTAINER));
    held->pairs = held->container == NULL ? NULL : PyObject_GetAttr(queue, state->names._otel_concurrency_pairs);
    if (held->pairs == NULL || (!PyList_CheckExact(held->container) &&
                                (PyObject *)Py_TYPE(held->container) != state->deque)) {
        return -1;
    }
    if (held->pairs == Py_None) {
        context = get_current(state);
        status = context == NULL ? -1 : PyObject_IsTrue(context);
        Py_XDECREF(context);
        return status == 0 ? 0 : -1;
    }
    if ((PyObject *)Py_TYPE(held->pairs) != PART(self, PAIRS)) {
        return -1;
    }
    if (order == FIRST) {
        return 1; /* those of another class are watched */
    }
    held->loans = read_slot(held->pairs, PART(self, PAIRS_LOANS));
    if (held->loans == NULL || is_true(held->loans, PART(self, SETTLED)) <= 0) {
        return -1;
    }
    return puts && is_true(held->loans, PART(self, HAS_GIVEN)) != 0 ? -1 : 1;
}

/* Report a fault by the function of the twin, and clear it. An interrupt is left as it is. */
static int report_fault(Method *self, const char *step) {
    PyObject *error, *nothing;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    error = PyErr_GetRaisedException();
    nothing = PyObject_CallFunction(PART(self, FAULT), "sO", step, error);
    Py_DECREF(error);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* Do what Fifo.put() does. */
static int pair_up(State *state, Held *held, PyObject *item, PyObject *context, Py_ssize_t size) {
    PyObject *nothing;
    if (append(state, held->pairs, item) < 0 || append(state, held->pairs, context) < 0) {
        return -1;
    }
    if (PyObject_Size(held->pairs) == 2 * size) {
        return 0;
    }
    nothing = PyObject_CallMethod(held->pairs, "forget", "n", size);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* Set `contexts` and `items` to those of a Keyed where no item is there twice, and all are known; else to
 * NULL. */
static int get_tables(Method *self, PyObject *pairs, PyObject **contexts, PyObject **items) {
    int unknown = is_true(pairs, PART(self, UNKNOWN));
    int repeated = unknown != 0 ? unknown : is_true(pairs, PART(self, REPEATED));
    *contexts = repeated != 0 ? NULL : read_slot(pairs, PART(self, CONTEXTS));
    *items = *contexts == NULL ? NULL : read_slot(pairs, PART(self, HELD));
    if (*items == NULL || !PyDict_CheckExact(*contexts) || !PyDict_CheckExact(*items)) {
        Py_CLEAR(*contexts);
        Py_CLEAR(*items);
    }
    return repeated < 0 || PyErr_Occurred() ? -1 : 0;
}

/* Do what Keyed.put() does. */
static int note(Method *self, Held *held, PyObject *item, PyObject *context, Py_ssize_t size) {
    PyObject *contexts, *items, *key, *nothing;
    int done = 0, status = get_tables(self, held->pairs, &contexts, &items);
    if (status == 0 && contexts != NULL && PyDict_GET_SIZE(contexts) + 1 == size) {
        key = PyLong_FromVoidPtr(item);
        status = key == NULL || PyDict_SetDefault(contexts, key, context) == NULL ? -1 : 0;
        if (status == 0 && PyDict_GET_SIZE(contexts) == size) { /* it was not there before */
            status = PyDict_SetItem(items, key, item);
            done = 1;
        }
        Py_XDECREF(key);
    }
    Py_XDECREF(contexts);
    Py_XDECREF(items);
    if (status == 0 && !done) {
        nothing = PyObject_CallMethod(held->pairs, "put", "OOn", item, context, size);
        status = nothing == NULL ? -1 : 0;
        Py_XDECREF(nothing);
    }
    return status;
}

/* Put an item into the container itself. */
static int store(State *state, Method *self, PyObject *container, PyObject *item, enum Order order) {
    PyObject *args[2] = {container, item}, *nothing;
    if (order != LEAST) {
        return PyList_CheckExact(container) ? PyList_Append(container, item)
                                            : append(state, container, item);
    }
    nothing = PyObject_Vectorcall(PART(self, PLAIN), args, 2, NULL);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* Put an item, and remember the current context with it. */
static PyObject *put_item(State *state, Method *self, PyObject *const *args, enum Order order) {
    Held held = {NULL, NULL, NULL};
    PyObject *context;
    Py_ssize_t size;
    int known = look_at(state, self, args[0], order, 1, &held), status;
    if (known < 0) {
        drop(&held);
        return leave_to_twin();
    }
    status = store(state, self, held.container, args[1], order);
    if (status == 0 && known) {
        context = get_current(state);
        size = context == NULL ? -1 : PyObject_Size(held.container);
        if (size < 0) {
            status = -1;
        } else if (order == LEAST) {
            status = note(self, &held, args[1], context, size);
        } else {
            status = pair_up(state, &held, args[1], context, size);
        }
        status = status < 0 ? report_fault(self, "put") : 0;
        Py_XDECREF(context);
    }
    drop(&held);
    return status < 0 ? NULL : Py_NewRef(Py_None);
}

/* Have the flow adopt the `context` of an item that it has got, of which this takes the reference. Return
 * True; or the context, where that is empty, or the flow is busy: it is to be noted as a loan. */
static PyObject *hand_over(State *state, PyObject *context) {
    int status = context == NULL ? -1 : PyObject_IsTrue(context);
    int busy = status > 0 ? adopt_context(state, context) : !status;
    if (status < 0 || busy < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    if (!busy) {
        Py_DECREF(context);
        Py_RETURN_TRUE;
    }
    return context;
}

/* Hand the item over that has come out at one end, if the pairs have it there. Return False otherwise. */
static PyObject *hand_pair_over(State *state, Held *held, PyObject *item, enum Order order) {
    PyObject *take = order == LAST ? state->pop : state->popleft, *due, *first, *second;
    Py_ssize_t size = PyObject_Size(held->container);
    if (size < 0) {
        return NULL;
    }
    if (PyObject_Size(held->pairs) != 2 * size + 2) {
        Py_RETURN_FALSE;
    }
    if ((due = PySequence_GetItem(held->pairs, order == LAST ? 2 * size : 0)) == NULL) {
        return NULL;
    }
    Py_DECREF(due); /* only which it is matters */
    if (due != item) {
        Py_RETURN_FALSE;
    }
    first = call_deque(take, held->pairs, NULL);
    second = first == NULL ? NULL : call_deque(take, held->pairs, NULL);
    if (second == NULL) {
        Py_XDECREF(first);
        return NULL;
    }
    Py_DECREF(order == LAST ? second : first); /* the item */
    return hand_over(state, order == LAST ? first : second);
}

/* Take the item that was the least out of the tables, and its context. Return whether it was there once. */
static int take_noted(State *state, PyObject *contexts, PyObject *items, PyObject *item,
                      PyObject **context) {
    PyObject *key = PyLong_FromVoidPtr(item);
    int status = key == NULL ? -1 : PyDict_GetItemRef(contexts, key, context);
    if (status > 0 && PyObject_TypeCheck(*context, (PyTypeObject *)state->deque)) {
        status = 0; /* it was put more than once */
    } else if (status > 0 && (PyDict_DelItem(contexts, key) < 0 || PyDict_DelItem(items, key) < 0)) {
        status = -1;
    }
    if (status > 0 && PyDict_GET_SIZE(contexts) == 0) { /* frees the memory of those that were large */
        PyDict_Clear(contexts);
        PyDict_Clear(items);
    }
    Py_XDECREF(key);
    if (status <= 0) {
        Py_CLEAR(*context);
    }
    return status;
}

/* Hand that item over, with the context that Keyed.take() returns. */
static PyObject *hand_noted_over(State *state, Method *self, Held *held, PyObject *item) {
    PyObject *contexts, *items, *context = NULL;
    Py_ssize_t size = PyObject_Size(held->container);
    int status = size < 0 ? -1 : get_tables(self, held->pairs, &contexts, &items);
    if (status < 0) {
        return NULL;
    }
    if (contexts != NULL && PyDict_GET_SIZE(contexts) == size + 1) {
        status = take_noted(state, contexts, items, item, &context);
    }
    Py_XDECREF(contexts);
    Py_XDECREF(items);
    if (status == 0) {
        context = PyObject_CallMethod(held->pairs, "take", "On", item, size);
    }
    return status < 0 ? NULL : hand_over(state, context);
}

/* Take an item out of the container itself. */
static PyObject *take_out(State *state, Method *self, PyObject *container, enum Order order) {
    if (order == LEAST) {
        return PyObject_CallOneArg(PART(self, PLAIN), container);
    }
    if ((PyObject *)Py_TYPE(container) == state->deque) {
        return call_deque(order == LAST ? state->pop : state->popleft, container, NULL);
    }
    return PyObject_CallMethodNoArgs(container, order == LAST ? state->names.pop : state->names.popleft);
}

/* Note that an item was taken out, which came with `context`, and which the flow does not adopt. */
static PyObject *lend(State *state, Method *self, PyObject *queue, PyObject *item, PyObject *context,
                      enum Order order, Held *held) {
    int status = PyObject_IsTrue(context);
    if (status > 0 && held->loans == NULL) {
        held->loans = read_slot(held->pairs, PART(self, PAIRS_LOANS));
    }
    if (status > 0) {
        status = held->loans == NULL ? -1 : is_passed(state, held->loans, PART(self, TO_PASS));
    }
    if (status != 0) {
        return status < 0 ? NULL : Py_NewRef(Py_None);
    }
    return PyObject_CallFunctionObjArgs(PART(self, LEND), order == FIRST ? queue : held->loans, item, context,
                                        NULL);
}

/* Get an item, and have the flow adopt the context that it was put in. */
static PyObject *get_item(State *state, Method *self, PyObject *queue, enum Order order) {
    Held held = {NULL, NULL, NULL};
    PyObject *item, *done, *nothing;
    int known = look_at(state, self, queue, order, 0, &held);
    if (known < 0) {
        drop(&held);
        return leave_to_twin();
    }
    item = take_out(state, self, held.container, order);
    if (item != NULL && known) {
        done = order == LEAST ? hand_noted_over(state, self, &held, item)
                              : hand_pair_over(state, &held, item, order);
        if (done == Py_False) {
            nothing = PyObject_CallFunctionObjArgs(PART(self, DELIVER), queue, item, PART(self, OWNER), NULL);
        } else if (done != NULL && done != Py_True) {
            nothing = lend(state, self, queue, item, done, order, &held);
        } else {
            nothing = Py_XNewRef(done);
        }
        Py_XDECREF(done);
        Py_XDECREF(nothing);
        if (nothing == NULL && report_fault(self, "get") < 0) {
            Py_CLEAR(item);
        }
    }
    drop(&held);
    return item;
}

#define HOOK(name, call) \
    static PyObject *name(State *state, Method *self, PyObject *const *args, Py_ssize_t Py_UNUSED(count)) { \
        return call; \
    }
HOOK(put_in_order, put_item(state, self, args, FIRST))
HOOK(put_on_top, put_item(state, self, args, LAST))
HOOK(put_sorted, put_item(state, self, args, LEAST))
HOOK(get_first, get_item(state, self, args[0], FIRST))
HOOK(get_last, get_item(state, self, args[0], LAST))
HOOK(get_least, get_item(state, self, args[0], LEAST))
#undef HOOK

/* Do what `get` of an asyncio.Queue does before its coroutine is made: a flow that has begun a span for its
 * last item goes back to its idle context. Return whether that is all. */
static int go_back(State *state, Method *self, PyObject *queue, PyObject *record) {
    PyObject *pairs = PyObject_GetAttr(queue, state->names._otel_concurrency_pairs);
    PyObject *container = pairs == NULL ? NULL : PyObject_GetAttr(queue, PART(self, CONTAINER));
    PyObject *known = NULL, *current = NULL, *idle, *token;
    int status = container == NULL ? -1 : 0;
    if (status == 0 && pairs != PART(self, UNPAIRED)) {
        if (PyObject_Size(container) <= 0 || !is_record(record)) {
            status = -1; /* it lets go, and waits */
        } else if (PyLong_AsLong(PyList_GET_ITEM(record, 3)) > PyLong_AsLong(state->FRESH)) {
            status = PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &known);
            current = status > 0 ? get_current(state) : NULL;
            status = status > 0 && current == NULL ? -1 : status;
        }
    }
    if (current != NULL && known == current) {
        idle = Py_NewRef(PyList_GET_ITEM(record, 1));
        token = attach(state, idle); /* the record stays: the next item overwrites it */
        status = token == NULL ? -1 : 0;
        Py_XDECREF(token);
        Py_DECREF(idle);
    }
    Py_XDECREF(known);
    Py_XDECREF(current);
    Py_XDECREF(container);
    Py_XDECREF(pairs);
    return status >= 0;
}

/* get(self) of an asyncio.Queue */
static PyObject *ask(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *record;
    int is_all = get_adopted(state, &record) == 0;
    if (is_all && record != NULL && record != Py_None) {
        is_all = go_back(state, self, args[0], record);
    }
    Py_XDECREF(record);
    return is_all ? PyObject_Vectorcall(PART(self, PLAIN), args, count, NULL) : leave_to_twin();
}

static const struct Usual all_usual[] = {
    {"SimpleQueue.put", 11, 2, 4, put_simple},
    {"SimpleQueue.get", 11, 1, 1, get_simple},
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
             Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots_of_method,
};

/* --- the functions of the module ---------------------------------------------------------------- */

static int expect(State *state, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most) {
    if (state->namespace == NULL) {
        call(NULL, NULL);
        return -1;
    }
    if (count < least || count > most) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return -1;
    }
    return 0;
}

/* carry_item(seam, future, work): what a work item does when it is made: it captures the context into
 * its future. `work` is the function, or from 3.14 on a task, of which that is the first part. */
static PyObject *carry_item(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *capture, *function, *context, *interrupt = NULL;
    int status = -1;
    if (expect(state, count, 3, 3) < 0) {
        return NULL;
    }
    function = PY_VERSION_HEX >= 0x030E0000 ? PySequence_GetItem(args[2], 0) : Py_NewRef(args[2]);
    capture = function == NULL ? NULL : read_slot(args[0], state->slots.capture);
    if (capture != NULL && capture == state->capture) {
        context = get_current(state);
        status = context == NULL ? -1 : PyObject_IsTrue(context);
    } else {
        context = capture == NULL ? NULL : PyObject_CallOneArg(capture, function);
        status = context == NULL ? -1 : context != Py_None;
    }
    if (status > 0) {
        /* not of what has a context of its own already */
        status = PyFunction_Check(function) ? 0 : PyObject_IsInstance(function, state->Call);
        if (status == 0) {
            status = PyObject_SetAttr(args[1], state->names._result, context);
        }
    }
    if (status < 0) {
        report(state, "submit", &interrupt);
    }
    Py_XDECREF(capture);
    Py_XDECREF(context);
    Py_XDECREF(function);
    return outcome(interrupt == NULL ? Py_NewRef(Py_None) : NULL, NULL, interrupt);
}

/* run_item(run, item, *args): what a work item does around its plain method `run`. */
static PyObject *run_item(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *record, *result = NULL, *interrupt = NULL;
    Turn turn = {NULL, NULL, NULL, NULL};
    if (expect(state, count, 2, 3) < 0) {
        return NULL;
    }
    if (get_adopted(state, &record) < 0 || pick_up(state, args[1], &turn) < 0) {
        report(state, "attach", &interrupt);
    }
    if (interrupt == NULL) {
        result = PyObject_Vectorcall(args[0], args + 1, count - 1, NULL);
    }
    return end_turn(state, record, &turn, result, interrupt);
}

/* adopt(context), which does what adoption.py's function does. */
static PyObject *adopt(PyObject *module, PyObject *context) {
    State *state = PyModule_GetState(module);
    int busy = expect(state, 0, 0, 0) < 0 ? -1 : adopt_context(state, context);
    return busy < 0 ? NULL : PyBool_FromLong(busy);
}

/* adopt_or(twin, span_key, invalid): return adopt(), which leaves what is not plain to its `twin`. It finds
 * the span of a context by that key; `invalid` stands for none. */
static PyObject *adopt_or(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return NULL;
    }
    Py_XSETREF(state->twin, Py_NewRef(args[0]));
    Py_XSETREF(state->span_key, Py_NewRef(args[1]));
    Py_XSETREF(state->invalid, Py_NewRef(args[2]));
    return PyObject_GetAttrString(module, "adopt");
}

/* method(kind, twin, *parts): return a method that is `twin`, a function in Python, of a kind in all_usual. */
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

/* --- an item from another process ---------------------------------------------------------------- */

/* What is known of a queue of multiprocessing is in `sides`, by the id of the queue. `get`, which is a
 * function in Python, calls these before its original and after it, and does itself what they do not. */

/* Set `side` to what is known of `queue`, or to NULL. */
static int get_side(PyObject *sides, PyObject *queue, PyObject **side) {
    PyObject *key = PyLong_FromVoidPtr(queue);
    int status;
    *side = NULL;
    if (!PyDict_Check(sides)) {
        PyErr_SetString(PyExc_TypeError, "expected a dictionary");
    }
    status = key == NULL || PyErr_Occurred() ? -1 : PyDict_GetItemRef(sides, key, side);
    Py_XDECREF(key);
    return status;
}

/* Whether an item lies in the pipe of a queue, as far as that can be asked here. */
static int is_readable(State *state, PyObject *side) {
    int found = 0;
#ifndef MS_WINDOWS
    PyObject *number = PyObject_GetAttr(side, state->names.descriptor);
    struct pollfd asked = {-1, POLLIN, 0};
    if (number != NULL && number != Py_None) { /* it is None before the twin has asked */
        asked.fd = (int)PyLong_AsLong(number);
    }
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        return -1;
    }
    found = asked.fd >= 0 && poll(&asked, 1, 0) > 0 && (asked.revents & POLLIN) != 0;
#endif
    return found;
}

/* begins(seam, sides, queue): whether nothing is to be done before the flow asks a queue for an item, by the
 * twin `ask` of adoption.py. The seam is on. The flow has adopted nothing; or has started no span for that,
 * and need not wait. */
static PyObject *begins(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *record = NULL, *adopted = NULL, *current = NULL, *side = NULL;
    int status, off;
    if (expect(state, count, 3, 3) < 0) {
        return NULL;
    }
    status = get_adopted(state, &record) < 0 ? -1 : record == NULL || record == Py_None;
    if (status == 0 && is_record(record) && PyLong_AsLong(PyList_GET_ITEM(record, 3)) <= 0) {
        status = PyErr_Occurred() ? -1 : PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &adopted);
        current = status > 0 ? get_current(state) : NULL;
        status = status <= 0 ? status : current == NULL ? -1 : current == adopted;
        status = status <= 0 ? status : get_side(args[1], args[2], &side);
        status = status <= 0 ? status : is_readable(state, side);
    }
    off = status <= 0 ? status : is_same(args[0], state->slots.capture, state->capture_nothing);
    Py_XDECREF(record);
    Py_XDECREF(adopted);
    Py_XDECREF(current);
    Py_XDECREF(side);
    if (status < 0 || off < 0) {
        leave_to_twin();
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    return PyBool_FromLong(status && !off);
}

/* Whether the flow is in no context, and has adopted nothing. */
static int is_idle(State *state) {
    PyObject *record, *current = NULL;
    int status = get_adopted(state, &record);
    if (status == 0 && (record == NULL || record == Py_None)) {
        current = get_current(state);
        status = current == NULL ? -1 : PyObject_Not(current);
    }
    Py_XDECREF(record);
    Py_XDECREF(current);
    return status;
}

/* Return what the namespace of a module has under a name, if that is a tuple of that size; otherwise NULL,
 * with or without an exception. */
static PyObject *cached(PyObject *namespace, PyObject *name, Py_ssize_t size) {
    PyObject *last = NULL;
    if (!PyDict_Check(namespace)) {
        PyErr_SetString(PyExc_TypeError, "expected a namespace");
    } else if (PyDict_GetItemRef(namespace, name, &last) > 0 &&
               (!PyTuple_CheckExact(last) || PyTuple_GET_SIZE(last) != size)) {
        Py_CLEAR(last);
    }
    return last;
}

/* Whether the propagator is the one that is in use, for which carrier.py has a function. */
static int is_in_use(State *state, PyObject *carrier, PyObject *propagator) {
    PyObject *function, *used;
    int status = PyDict_GetItemRef(carrier, state->names.get_global_textmap, &function);
    used = status <= 0 ? NULL : call(function, NULL);
    Py_XDECREF(function);
    Py_XDECREF(used);
    return used == NULL ? -(PyErr_Occurred() != NULL) : used == propagator;
}

static int ends_with(PyObject *message, PyObject *trailer) {
    Py_ssize_t before;
    if (!PyBytes_CheckExact(message) || !PyBytes_CheckExact(trailer)) {
        return 0;
    }
    before = PyBytes_GET_SIZE(message) - PyBytes_GET_SIZE(trailer);
    return before >= 0 && memcmp(PyBytes_AS_STRING(message) + before, PyBytes_AS_STRING(trailer),
                                 PyBytes_GET_SIZE(trailer)) == 0;
}

/* Return the context behind `message`, if that is the last one which carrier.py has decoded; otherwise
 * NULL, with or without an exception. */
static PyObject *known_context(State *state, PyObject *message, PyObject *carrier) {
    PyObject *last = cached(carrier, state->names._decoded, 4), *context = NULL;
    if (last != NULL && ends_with(message, PyTuple_GET_ITEM(last, 3)) &&
        is_in_use(state, carrier, PyTuple_GET_ITEM(last, 1)) > 0) {
        context = Py_NewRef(PyTuple_GET_ITEM(last, 2));
    }
    Py_XDECREF(last);
    return context;
}

/* arrived(seam, sides, queue, message, carrier): whether all is done for an item that has come out
 * of the queue, with a message, or with None where nothing follows its pickle. The flow adopts the item's
 * context, if that is known; or it is in no context, and stays there. */
static PyObject *arrived(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *side = NULL, *loans = NULL, *settled = NULL, *context = NULL, *first = NULL;
    int status;
    if (expect(state, count, 5, 5) < 0 || (status = get_side(args[1], args[2], &side)) < 0) {
        return NULL;
    }
    loans = status == 0 ? NULL : PyObject_GetAttr(side, state->names.loans);
    settled = loans == NULL ? NULL : PyObject_GetAttr(loans, state->names.settled);
    status = settled == NULL ? 0 : PyObject_IsTrue(settled);
    if (status > 0 && args[3] == Py_None) {
        status = is_idle(state);
    } else if (status > 0) {
        context = known_context(state, args[3], args[4]);
        status = context == NULL ? 0 : PyObject_IsTrue(context);
        first = status <= 0 ? NULL : PyObject_GetAttr(loans, state->names.first);
        status = first == NULL ? 0 : first == Py_None;
        status = status <= 0 ? status : is_same(args[0], state->slots.capture, state->capture_nothing) == 0;
        if (status > 0) {
            status = PyObject_SetAttr(side, state->names.gave_contexts, Py_True);
            status = status < 0 ? -1 : adopt_context(state, context) == 0; /* a busy flow is for the loans */
        }
    }
    Py_XDECREF(side);
    Py_XDECREF(loans);
    Py_XDECREF(settled);
    Py_XDECREF(first);
    Py_XDECREF(context);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(status);
}

/* Return when the span of `context` has ended; None where it has not, or there is none. */
static PyObject *end_of_span(State *state, PyObject *context) {
    PyObject *span, *end = NULL;
    int status = state->span_key == NULL ? 0 : PyDict_GetItemRef(context, state->span_key, &span);
    if (status > 0) {
        end = PyObject_GetAttr(span, state->names._end_time);
        Py_DECREF(span);
        if (end == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear(); /* it is no span of the SDK */
            status = 0;
        }
    }
    return status == 0 ? Py_NewRef(Py_None) : end;
}

/* known_trailer(context, carrier): the trailer of the context, if that is the last one which the function of
 * this module has encoded; otherwise None. */
static PyObject *known_trailer(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *last, *known = NULL, *end = NULL, *trailer = NULL;
    int status = 0;
    if (expect(state, count, 2, 2) < 0) {
        return NULL;
    }
    last = cached(args[1], state->names._encoded, 4);
    if (last != NULL && PyWeakref_Check(PyTuple_GET_ITEM(last, 0)) && PyDict_Check(args[0])) {
        status = PyWeakref_GetRef(PyTuple_GET_ITEM(last, 0), &known);
        status = status <= 0 ? status : known == args[0];
        status = status <= 0 ? status : is_in_use(state, args[1], PyTuple_GET_ITEM(last, 1));
        end = status <= 0 ? NULL : end_of_span(state, args[0]);
        status = end == NULL ? 0 : PyObject_RichCompareBool(PyTuple_GET_ITEM(last, 2), end, Py_EQ);
    }
    if (status > 0 && PyTuple_CheckExact(PyTuple_GET_ITEM(last, 3))) {
        trailer = PySequence_GetItem(PyTuple_GET_ITEM(last, 3), 1);
    }
    Py_XDECREF(last);
    Py_XDECREF(known);
    Py_XDECREF(end);
    return trailer != NULL || PyErr_Occurred() ? trailer : Py_NewRef(Py_None);
}

/* --- collections ---------------------------------------------------------------------------------- */

/* Whether `args` are a phase, this one, and something about the collection. */
static int is_phase(State *state, PyObject *const *args, Py_ssize_t count, const char *phase) {
    if (expect(state, count, 2, 2) < 0) {
        return -1;
    }
    if (!PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "expected the phase of a collection");
        return -1;
    }
    return PyUnicode_CompareWithASCIIString(args[0], phase) == 0;
}

/* The variable that the current context is in, borrowed; NULL where it is in none. `attach` may be a
 * function in Python, which counts what arrives. */
static PyObject *own_variable(State *state) {
    PyObject *get = state->get_current;
    PyObject *owner = get != NULL && PyCFunction_Check(get) ? PyCFunction_GET_SELF(get) : NULL;
    return owner != NULL && PyContextVar_CheckExact(owner) ? owner : NULL;
}

/* begin_collection(phase, info), which gc.callbacks calls: what the collector ends runs in no context.
 * No code in Python runs here, so a signal is handled after the collection, not in it. */
static PyObject *begin_collection(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *variable = own_variable(state), *record, *interrupt = NULL;
    int begins = is_phase(state, args, count, "start"), status = 0;
    if (begins < 0) {
        return NULL;
    }
    if (begins && variable != NULL) {
        Py_XSETREF(state->token, PyContextVar_Set(variable, state->NO_CONTEXT));
        status = state->token == NULL ? -1 : get_adopted(state, &record);
        if (status == 0) {
            Py_XSETREF(state->record, record);
            status = record == Py_None ? 0 : set_adopted(state, Py_None);
        }
    }
    if (status < 0) {
        report(state, "attach", &interrupt);
    }
    return outcome(interrupt == NULL ? Py_NewRef(Py_None) : NULL, NULL, interrupt);
}

/* end_collection(phase, info): the flow is where it was. */
static PyObject *end_collection(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *variable = own_variable(state), *present, *interrupt = NULL;
    PyObject *token = state->token, *record = state->record;
    int ends = is_phase(state, args, count, "stop");
    if (ends < 0) {
        return NULL;
    }
    if (ends && token != NULL) {
        state->token = state->record = NULL;
        if (variable != NULL && PyContextVar_Reset(variable, token) < 0) {
            report(state, "detach", &interrupt);
        }
        if (record != NULL && get_adopted(state, &present) == 0) {
            if (present != record) {
                set_adopted(state, record);
            }
            Py_DECREF(present);
        }
        if (PyErr_Occurred()) {
            report(state, "detach", &interrupt);
        }
        Py_DECREF(token);
        Py_XDECREF(record);
    }
    return outcome(interrupt == NULL ? Py_NewRef(Py_None) : NULL, NULL, interrupt);
}

/* is_collecting(): whether a collection has begun, and its end was not heard of. */
static PyObject *is_collecting(PyObject *module, PyObject *Py_UNUSED(nothing)) {
    return PyBool_FromLong(((State *)PyModule_GetState(module))->token != NULL);
}

/* --- binding to handoff.py ---------------------------------------------------------------------- */

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
    {"carry_item", (PyCFunction)(void (*)(void))carry_item, METH_FASTCALL, NULL},
    {"run_item", (PyCFunction)(void (*)(void))run_item, METH_FASTCALL, NULL},
    {"adopt", adopt, METH_O, NULL},
    {"adopt_or", (PyCFunction)(void (*)(void))adopt_or, METH_FASTCALL, NULL},
    {"method", method, METH_VARARGS, NULL},
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
