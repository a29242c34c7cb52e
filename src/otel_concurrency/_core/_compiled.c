/* The compiled part of the hot path: what a hand-off costs around the program's own call.
 *
 * Each function here has its twin in pure Python, in handoff.py and _futures.py, and does the same,
 * step by step. compiled.py chooses which of the two is used. Functions that the program can see
 * stay Python functions, which call these: their frames are looked for, and are in tracebacks.
 *
 * What a test or a program may replace (`attach`, `detach`, `get_current`, ...) is looked up in the
 * namespace of handoff.py at each call, as Python does. Only where it is the method of the context
 * variable that handoff.py has found there, the variable is used directly.
 *
 * Rules: no borrowed reference is held over a call that can run Python code. An exception that is
 * no `Exception`, such as KeyboardInterrupt, is never swallowed. The context is detached whatever
 * the program's call raises. All state belongs to the module, and so to one interpreter.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define INTERFACE 1 /* compiled.py has the same number; a module of another is not used */

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

/* Names that are looked up in handoff.py, and attributes. */
#define NAMES(X) \
    X(any_adopted) X(attach) X(detach) X(get_current) X(get_ident) X(report_raised) \
    X(_result) X(future) X(capture) X(Call) X(current) X(change) X(_otel_concurrency_loans)

/* Objects of handoff.py that are never replaced there. */
#define OBJECTS(X) X(adopted) X(bodies) X(ages) X(Context) X(FRESH) X(SEVERAL) X(capture_nothing)

typedef struct {
    PyObject *namespace; /* of handoff.py; NULL until it calls bind() */
    PyObject *variable;  /* the context variable of OpenTelemetry, or NULL */
    PyObject *variable_get, *variable_set, *variable_reset, *capture_current;
#define X(name) PyObject *name;
    OBJECTS(X)
#undef X
    struct {
#define X(name) PyObject *name;
        NAMES(X)
#undef X
    } names;
} State;

/* Return what handoff.py has under a name: a new reference, or NULL with an exception. */
static PyObject *named(State *state, PyObject *name) {
    PyObject *found;
    if (state->namespace == NULL) { /* the interpreter is ending */
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return NULL;
    }
    if (PyDict_GetItemRef(state->namespace, name, &found) == 0) {
        PyErr_SetObject(PyExc_NameError, name);
    }
    return found;
}

/* --- the current context ----------------------------------------------------------------------- */

static PyObject *get_current(State *state) {
    PyObject *function = named(state, state->names.get_current), *context = NULL;
    if (function == NULL) {
        return NULL;
    }
    if (function == state->variable_get) {
        if (PyContextVar_Get(state->variable, NULL, &context) == 0 && context == NULL) {
            PyErr_SetObject(PyExc_LookupError, state->variable);
        }
    } else {
        context = PyObject_CallNoArgs(function);
    }
    Py_DECREF(function);
    return context;
}

static PyObject *attach(State *state, PyObject *context) {
    PyObject *function = named(state, state->names.attach), *token;
    if (function == NULL) {
        return NULL;
    }
    token = function == state->variable_set ? PyContextVar_Set(state->variable, context)
                                            : PyObject_CallOneArg(function, context);
    Py_DECREF(function);
    return token;
}

static int detach(State *state, PyObject *token) {
    PyObject *function = named(state, state->names.detach), *nothing;
    int status;
    if (function == NULL) {
        return -1;
    }
    if (function == state->variable_reset) {
        status = PyContextVar_Reset(state->variable, token);
    } else {
        nothing = PyObject_CallOneArg(function, token);
        status = nothing == NULL ? -1 : 0;
        Py_XDECREF(nothing);
    }
    Py_DECREF(function);
    return status;
}

/* --- faults ------------------------------------------------------------------------------------ */

/* Report the raised exception as a fault of the library, and clear it. Where it is no `Exception`,
 * it is put in `interrupt` instead, to be raised when the context is detached. */
static void report(State *state, const char *step, PyObject **interrupt) {
    PyObject *error, *function, *reported = NULL;
    if (PyErr_ExceptionMatches(PyExc_Exception)) {
        error = PyErr_GetRaisedException();
        function = named(state, state->names.report_raised);
        if (function != NULL) {
            reported = PyObject_CallFunction(function, "sO", step, error);
            Py_DECREF(function);
        }
        Py_DECREF(error);
        if (reported != NULL) {
            Py_DECREF(reported);
            return;
        }
        if (PyErr_ExceptionMatches(PyExc_Exception)) {
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

/* Set `record` to what the flow has adopted: None, or NULL where no flow has ever adopted. */
static int get_adopted(State *state, PyObject **record) {
    PyObject *any = named(state, state->names.any_adopted);
    int status = 0;
    *record = NULL;
    if (any == NULL) {
        return -1;
    }
    if (any == Py_True) {
        status = PyContextVar_Get(state->adopted, NULL, record);
    }
    Py_DECREF(any);
    return status;
}

static int set_adopted(State *state, PyObject *record) {
    PyObject *token = PyContextVar_Set(state->adopted, record == NULL ? Py_None : record);
    Py_XDECREF(token);
    return token == NULL ? -1 : 0;
}

/* Let go of what the work has adopted: go back to `record`. */
static int restore_adopted(State *state, PyObject *record) {
    PyObject *now;
    int changed;
    if (get_adopted(state, &now) < 0) {
        return -1;
    }
    changed = now != NULL && now != (record == NULL ? Py_None : record);
    Py_XDECREF(now);
    return changed ? set_adopted(state, record) : 0;
}

/* --- the body of a thread ----------------------------------------------------------------------- */

static int forget_age(State *state, PyObject *thread) {
    int known = PyDict_GET_SIZE(state->ages) == 0 ? 0 : PyDict_Contains(state->ages, thread);
    return known <= 0 ? known : PyDict_DelItem(state->ages, thread);
}

/* Note that `context` is what the thread's present work was handed off in. Set `thread` to the key,
 * and `body` to what was there before, or NULL. */
static int begin_body(State *state, PyObject *context, PyObject **thread, PyObject **body) {
    PyObject *function = named(state, state->names.get_ident);
    if (function == NULL) {
        return -1;
    }
    *thread = PyObject_CallNoArgs(function);
    Py_DECREF(function);
    if (*thread == NULL ||
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

/* Go back to what the flow has adopted, and to the context that it had. */
static void leave(State *state, PyObject *record, PyObject *token, PyObject **interrupt) {
    if (restore_adopted(state, record) < 0) {
        report(state, "detach", interrupt);
    }
    if (token != NULL && detach(state, token) < 0) {
        report(state, "detach", interrupt);
    }
}

/* --- the work item of a thread pool ------------------------------------------------------------- */

/* Whether `function` has a context of its own already. */
static int is_call(State *state, PyObject *function) {
    PyObject *kind;
    int found;
    if (PyFunction_Check(function)) {
        return 0;
    }
    kind = named(state, state->names.Call);
    if (kind == NULL) {
        return -1;
    }
    found = PyObject_IsInstance(function, kind);
    Py_DECREF(kind);
    return found;
}

/* Capture the context for a work item that is being made, with `seam`, into its `future`. */
static int carry(State *state, PyObject *seam, PyObject *future, PyObject *function) {
    PyObject *capture = PyObject_GetAttr(seam, state->names.capture), *context;
    int status;
    if (capture == NULL) {
        return -1;
    }
    context = capture == state->capture_current ? get_current(state)
                                                : PyObject_CallOneArg(capture, function);
    if (context == NULL) {
        status = -1;
    } else {
        status = capture == state->capture_current ? PyObject_IsTrue(context) : context != Py_None;
    }
    Py_DECREF(capture);
    if (status > 0) {
        status = is_call(state, function);
        if (status == 0) {
            status = PyObject_SetAttr(future, state->names._result, context);
        }
    }
    Py_XDECREF(context);
    return status;
}

typedef struct {
    PyObject *before; /* the context of the worker */
    PyObject *token, *thread, *body;
} Turn;

/* Take the context out of the future of `item`, and attach it. */
static int pick_up(State *state, PyObject *item, Turn *turn) {
    PyObject *future, *context;
    int status = 0;
    turn->before = get_current(state);
    if (turn->before == NULL) {
        return -1;
    }
    future = PyObject_GetAttr(item, state->names.future);
    if (future == NULL) {
        return -1;
    }
    context = PyObject_GetAttr(future, state->names._result);
    if (context == NULL) {
        status = -1;
    } else if (PyObject_TypeCheck(context, (PyTypeObject *)state->Context)) {
        /* otherwise the future was cancelled or completed */
        if (PyObject_SetAttr(future, state->names._result, Py_None) < 0) {
            status = -1;
        } else {
            turn->token = attach(state, context);
            status = turn->token == NULL ? -1
                                         : begin_body(state, context, &turn->thread, &turn->body);
        }
    }
    Py_XDECREF(context);
    Py_DECREF(future);
    return status;
}

/* Put the worker back in its context, if the item came without one and has left another. */
static int tidy_up(State *state, PyObject *before) {
    PyObject *now = get_current(state), *token;
    int same;
    if (now == NULL) {
        return -1;
    }
    same = now == before;
    Py_DECREF(now);
    if (same) {
        return 0;
    }
    token = attach(state, before);
    Py_XDECREF(token);
    return token == NULL ? -1 : 0;
}

/* --- adopting the context of an item ------------------------------------------------------------ */

/* What adopt_plainly() returns beside -1, after a fault. */
enum { ADOPTED, NOT_PLAIN };

/* Have the flow adopt `context`, with nothing below it but the context `idle`. */
static int begin_adoption(State *state, PyObject *context, PyObject *idle, PyObject *buried) {
    PyObject *any = named(state, state->names.any_adopted), *reference, *record, *token;
    int status;
    if (any == NULL) {
        return -1;
    }
    Py_DECREF(any);
    if (any != Py_True &&
        PyDict_SetItem(state->namespace, state->names.any_adopted, Py_True) < 0) {
        return -1;
    }
    reference = PyWeakref_NewRef(context, NULL);
    if (reference == NULL) {
        return -1;
    }
    record = Py_BuildValue("[NOOOO]", reference, idle, buried, state->FRESH, Py_None);
    if (record == NULL) {
        return -1;
    }
    status = set_adopted(state, record);
    Py_DECREF(record);
    token = status < 0 ? NULL : attach(state, context);
    Py_XDECREF(token);
    return token == NULL ? -1 : ADOPTED;
}

/* Set the stage in a flow's `record`, with which this returns. */
static int at_stage(PyObject *record, PyObject *stage) {
    return PyList_SetItem(record, 3, Py_NewRef(stage)) < 0 ? -1 : ADOPTED;
}

/* The same as adopt_plainly(), of a flow that has a `record`. */
static int adopt_again(State *state, PyObject *context, PyObject *current, PyObject *record) {
    PyObject *known, *idle, *buried, *token;
    int status, was_known;
    long stage;
    if (!PyList_CheckExact(record) || PyList_GET_SIZE(record) != 5 ||
        !PyWeakref_Check(PyList_GET_ITEM(record, 0)) ||
        !PyLong_Check(PyList_GET_ITEM(record, 3))) {
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
        stage = PyLong_AsLong(PyList_GET_ITEM(record, 3));
        if (PyErr_Occurred() || stage <= 0 || PyList_GET_ITEM(record, 4) != Py_None) {
            Py_DECREF(known);
            PyErr_Clear();
            return NOT_PLAIN; /* this may be a batch */
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
    idle = Py_NewRef(PyList_GET_ITEM(record, 1));
    buried = Py_NewRef(PyList_GET_ITEM(record, 2));
    status = PyObject_IsTrue(idle);
    if (status == 0) {
        status = begin_adoption(state, context, idle, buried);
    } else if (status > 0) {
        status = NOT_PLAIN; /* the item may be a stranger's */
    }
    Py_DECREF(idle);
    Py_DECREF(buried);
    return status;
}

/* Do what `adopt` of adoption.py does with a context that is not empty, in the cases that are usual.
 * In any other, do nothing, and return NOT_PLAIN: that function is to be called. */
static int adopt_plainly(State *state, PyObject *context) {
    PyObject *current = get_current(state), *record, *buried;
    int status;
    if (current == NULL) {
        return -1;
    }
    if (PyContextVar_Get(state->adopted, NULL, &record) < 0) {
        Py_DECREF(current);
        return -1;
    }
    if (record != NULL && record != Py_None) {
        status = adopt_again(state, context, current, record);
    } else {
        status = PyObject_IsTrue(current);
        if (status > 0) {
            status = NOT_PLAIN; /* the flow may be busy with a span */
        } else if (status == 0) {
            buried = PyTuple_New(0);
            status = buried == NULL ? -1 : begin_adoption(state, context, current, buried);
            Py_XDECREF(buried);
        }
    }
    Py_XDECREF(record);
    Py_DECREF(current);
    return status;
}

/* --- queue.SimpleQueue -------------------------------------------------------------------------- */

/* What _queue.py tells about its class, as a tuple in this order. */
enum { SEAM, PLAIN_PUT, PLAIN_GET, MARK, EMPTY, NOTED, DELIVER, ADOPT, LEND, LET_GO, IN_VAIN, PARTS };

#define PART(parts, number) PyTuple_GET_ITEM(parts, number)

/* Whether the seam is off. */
static int is_off(State *state, PyObject *seam) {
    PyObject *capture = PyObject_GetAttr(seam, state->names.capture);
    Py_XDECREF(capture);
    return capture == NULL ? -1 : capture == state->capture_nothing;
}

/* What the queue has of loans: None, which is usual (1), others (2), or none yet (0). */
static int loans_of(State *state, PyObject *queue) {
    PyObject *loans = PyObject_GetAttr(queue, state->names._otel_concurrency_loans);
    int status;
    if (loans == NULL) {
        return -1;
    }
    status = loans == Py_None ? 1 : 2 * PyObject_IsTrue(loans);
    Py_DECREF(loans);
    return status;
}

/* Return what to store for `item`. */
static PyObject *to_store(State *state, PyObject *parts, PyObject *queue, PyObject *item) {
    PyObject *function = PyObject_GetAttr(PART(parts, SEAM), state->names.current);
    PyObject *context, *stored = NULL;
    int holds, loans, off;
    if (function == NULL) {
        return NULL;
    }
    context = function == state->variable_get ? get_current(state) : PyObject_CallNoArgs(function);
    Py_DECREF(function);
    if (context == NULL) {
        return NULL;
    }
    holds = PyObject_IsTrue(context);
    loans = holds < 0 ? -1 : loans_of(state, queue);
    off = loans < 0 ? -1 : holds ? is_off(state, PART(parts, SEAM)) : 0;
    if (off == 0 && holds && loans == 1) {
        stored = PyTuple_Pack(3, PART(parts, MARK), item, context);
    } else if (off == 0 && (holds || loans == 2)) {
        stored = PyObject_CallFunctionObjArgs(PART(parts, NOTED), queue, item, context, NULL);
    } else if (off >= 0) {
        stored = Py_NewRef(item);
    }
    Py_DECREF(context);
    return stored;
}

/* Have the flow adopt the `context` of an `item`, where that is plain: return NOT_PLAIN otherwise. */
static int hand_over(State *state, PyObject *parts, PyObject *queue, PyObject *item, PyObject *context) {
    PyObject *change, *current, *busy, *nothing;
    int status = is_off(state, PART(parts, SEAM));
    if (status != 0) {
        return status < 0 ? -1 : NOT_PLAIN;
    }
    if (context == NULL) {
        current = get_current(state);
        status = current == NULL ? -1 : PyObject_IsTrue(current);
        Py_XDECREF(current);
        if (status == 0) {
            status = loans_of(state, queue);
            return status < 0 ? -1 : status == 2 ? NOT_PLAIN : ADOPTED;
        }
        return status < 0 ? -1 : NOT_PLAIN;
    }
    change = PyObject_GetAttr(PART(parts, SEAM), state->names.change);
    Py_XDECREF(change);
    if (change != Py_None) {
        return change == NULL ? -1 : NOT_PLAIN;
    }
    status = PyObject_IsTrue(context);
    if (status <= 0) {
        return status < 0 ? -1 : NOT_PLAIN;
    }
    status = adopt_plainly(state, context);
    if (status != NOT_PLAIN) {
        return status;
    }
    busy = PyObject_CallOneArg(PART(parts, ADOPT), context);
    status = busy == NULL ? -1 : PyObject_IsTrue(busy);
    Py_XDECREF(busy);
    if (status > 0) {
        nothing = PyObject_CallFunctionObjArgs(PART(parts, LEND), queue, item, context, NULL);
        status = nothing == NULL ? -1 : 0;
        Py_XDECREF(nothing);
    }
    return status < 0 ? -1 : ADOPTED;
}

/* Return the item in what was `stored`, of which this takes the reference, and adopt its context. */
static PyObject *deliver(State *state, PyObject *parts, PyObject *queue, PyObject *stored) {
    PyObject *item = stored, *context = NULL, *delivered, *interrupt = NULL;
    Py_ssize_t size = PyTuple_CheckExact(stored) ? PyTuple_GET_SIZE(stored) : 0;
    int status;
    if (size == 3 && PyTuple_GET_ITEM(stored, 0) == PART(parts, MARK)) {
        item = PyTuple_GET_ITEM(stored, 1);
        context = PyTuple_GET_ITEM(stored, 2);
    }
    status = size == 4 ? NOT_PLAIN : hand_over(state, parts, queue, item, context);
    if (status == NOT_PLAIN) {
        delivered = PyObject_CallFunctionObjArgs(PART(parts, DELIVER), queue, stored, NULL);
        Py_DECREF(stored);
        return delivered;
    }
    if (status < 0) {
        report(state, "get", &interrupt);
    }
    Py_INCREF(item);
    Py_DECREF(stored);
    return outcome(item, NULL, interrupt);
}

/* Return an item without waiting, or NULL without an exception where there is none. */
static PyObject *get_at_once(State *state, PyObject *parts, PyObject *queue) {
    PyObject *args[2] = {queue, Py_False};
    PyObject *stored = PyObject_Vectorcall(PART(parts, PLAIN_GET), args, 2, NULL);
    if (stored == NULL) {
        if (PyErr_ExceptionMatches(PART(parts, EMPTY))) {
            PyErr_Clear();
        }
        return NULL;
    }
    return deliver(state, parts, queue, stored);
}

/* --- the functions of the module ---------------------------------------------------------------- */

static int expect(State *state, Py_ssize_t count, Py_ssize_t least, Py_ssize_t most) {
    if (state->namespace == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "bind() was not called");
        return -1;
    }
    if (count < least || count > most) {
        PyErr_SetString(PyExc_TypeError, "wrong number of arguments");
        return -1;
    }
    return 0;
}

/* carry_item(seam, future, work): what a work item does when it is made. `work` is the function, or
 * from 3.14 on a task, of which that is the first part. */
static PyObject *carry_item(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *function, *interrupt = NULL;
    if (expect(state, count, 3, 3) < 0) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030E0000
    function = PySequence_GetItem(args[2], 0);
#else
    function = Py_NewRef(args[2]);
#endif
    if (function == NULL || carry(state, args[0], args[1], function) < 0) {
        report(state, "submit", &interrupt);
    }
    Py_XDECREF(function);
    return outcome(interrupt == NULL ? Py_NewRef(Py_None) : NULL, NULL, interrupt);
}

/* run_item(run, item, *args): what a work item does around its plain method `run`. */
static PyObject *run_item(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *record, *result = NULL, *raised, *interrupt = NULL;
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
    raised = PyErr_GetRaisedException();
    if (turn.thread != NULL && end_body(state, turn.thread, turn.body) < 0) {
        report(state, "detach", &interrupt);
    }
    leave(state, record, turn.token, &interrupt);
    if (turn.token == NULL && turn.before != NULL && tidy_up(state, turn.before) < 0) {
        report(state, "detach", &interrupt);
    }
    Py_XDECREF(record);
    Py_XDECREF(turn.before);
    Py_XDECREF(turn.token);
    Py_XDECREF(turn.thread);
    Py_XDECREF(turn.body);
    return outcome(result, raised, interrupt);
}

static int expect_queue(State *state, PyObject *const *args, Py_ssize_t count, Py_ssize_t wanted) {
    if (expect(state, count, wanted, wanted) < 0) {
        return -1;
    }
    if (!PyTuple_CheckExact(args[0]) || PyTuple_GET_SIZE(args[0]) != PARTS) {
        PyErr_SetString(PyExc_TypeError, "expected the parts of a class of queues");
        return -1;
    }
    return 0;
}

/* put_simple(parts, queue, item, block, timeout): what `put` of a SimpleQueue does. */
static PyObject *put_simple(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *call[4], *stored, *result, *interrupt = NULL;
    if (expect_queue(state, args, count, 5) < 0) {
        return NULL;
    }
    stored = to_store(state, args[0], args[1], args[2]);
    if (stored == NULL) {
        report(state, "put", &interrupt);
        if (interrupt != NULL) {
            return outcome(NULL, NULL, interrupt);
        }
        stored = Py_NewRef(args[2]);
    }
    call[0] = args[1];
    call[1] = stored;
    call[2] = args[3];
    call[3] = args[4];
    result = PyObject_Vectorcall(PART(args[0], PLAIN_PUT), call, 4, NULL);
    Py_DECREF(stored);
    return result;
}

/* get_simple(parts, queue, block, timeout): what its `get` does. */
static PyObject *get_simple(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    State *state = PyModule_GetState(module);
    PyObject *record, *item, *nothing, *raised, *interrupt = NULL;
    int has_adopted, waits;
    if (expect_queue(state, args, count, 4) < 0 ||
        PyContextVar_Get(state->adopted, NULL, &record) < 0) {
        return NULL;
    }
    has_adopted = record != NULL && record != Py_None;
    Py_XDECREF(record);
    if (has_adopted) {
        if (args[3] == Py_None) {
            item = get_at_once(state, args[0], args[1]);
            if (item != NULL || PyErr_Occurred()) {
                return item;
            }
        }
        waits = PyObject_IsTrue(args[2]);
        if (waits < 0) {
            return NULL;
        }
        if (waits) {
            nothing = PyObject_CallNoArgs(PART(args[0], LET_GO));
            if (nothing == NULL) {
                return NULL;
            }
            Py_DECREF(nothing);
        }
    }
    item = PyObject_Vectorcall(PART(args[0], PLAIN_GET), args + 1, 3, NULL);
    if (item != NULL) {
        return deliver(state, args[0], args[1], item);
    }
    if (!PyErr_ExceptionMatches(PART(args[0], EMPTY))) {
        return NULL;
    }
    raised = PyErr_GetRaisedException();
    nothing = PyObject_CallOneArg(PART(args[0], IN_VAIN), args[1]);
    if (nothing == NULL) {
        report(state, "get", &interrupt);
    }
    Py_XDECREF(nothing);
    return outcome(NULL, raised, interrupt);
}

/* --- binding to handoff.py ---------------------------------------------------------------------- */

static int set_named(State *state, const char *name, PyObject **place) {
    PyObject *key = PyUnicode_InternFromString(name), *found;
    if (key == NULL) {
        return -1;
    }
    found = named(state, key);
    Py_DECREF(key);
    Py_XSETREF(*place, found);
    return found == NULL ? -1 : 0;
}

/* Where `attach` is a method of a context variable, keep that variable. */
static int set_variable(State *state) {
    PyObject *owner;
    if (set_named(state, "get_current", &state->variable_get) < 0 ||
        set_named(state, "attach", &state->variable_set) < 0 ||
        set_named(state, "detach", &state->variable_reset) < 0 ||
        set_named(state, "capture", &state->capture_current) < 0) {
        return -1;
    }
    if (PyCFunction_Check(state->variable_set)) {
        owner = PyCFunction_GET_SELF(state->variable_set);
        if (owner != NULL && PyContextVar_CheckExact(owner)) {
            Py_XSETREF(state->variable, Py_NewRef(owner));
            return 0;
        }
    }
    Py_CLEAR(state->variable_get);
    Py_CLEAR(state->variable_set);
    Py_CLEAR(state->variable_reset);
    return 0;
}

/* bind(namespace): work with what is in the namespace of handoff.py, which calls this once. */
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
    if (set_variable(state) < 0) {
        goto failed;
    }
    if (!PyContextVar_CheckExact(state->adopted) || !PyDict_Check(state->bodies) ||
        !PyDict_Check(state->ages) || !PyType_Check(state->Context)) {
        PyErr_SetString(PyExc_TypeError, "something else was expected in the namespace");
        goto failed;
    }
    Py_RETURN_NONE;
failed:
    Py_CLEAR(state->namespace); /* without it nothing can be called */
    return NULL;
}

static PyMethodDef functions[] = {
    {"bind", bind, METH_O, NULL},
    {"carry_item", (PyCFunction)(void (*)(void))carry_item, METH_FASTCALL, NULL},
    {"run_item", (PyCFunction)(void (*)(void))run_item, METH_FASTCALL, NULL},
    {"put_simple", (PyCFunction)(void (*)(void))put_simple, METH_FASTCALL, NULL},
    {"get_simple", (PyCFunction)(void (*)(void))get_simple, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int prepare(PyObject *module) {
    State *state = PyModule_GetState(module);
#define X(name) \
    if ((state->names.name = PyUnicode_InternFromString(#name)) == NULL) { \
        return -1; \
    }
    NAMES(X)
#undef X
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    State *state = PyModule_GetState(module);
    Py_VISIT(state->namespace);
    Py_VISIT(state->variable);
    Py_VISIT(state->variable_get);
    Py_VISIT(state->variable_set);
    Py_VISIT(state->variable_reset);
    Py_VISIT(state->capture_current);
#define X(name) Py_VISIT(state->name);
    OBJECTS(X)
#undef X
    return 0;
}

static int clear(PyObject *module) {
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->namespace);
    Py_CLEAR(state->variable);
    Py_CLEAR(state->variable_get);
    Py_CLEAR(state->variable_set);
    Py_CLEAR(state->variable_reset);
    Py_CLEAR(state->capture_current);
#define X(name) Py_CLEAR(state->name);
    OBJECTS(X)
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
