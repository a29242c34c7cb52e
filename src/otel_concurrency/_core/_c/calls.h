/* Calls that carry a context: the work items of thread pools, and DirectCall. */
#pragma once
#include "faults.h"
#include "methods.h"

/* --- the body of a thread ------------------------------------------------------------------------------- */

static int forget_age(State *state, PyObject *thread) {
    int known = PyDict_GET_SIZE(state->ages) == 0 ? 0 : PyDict_Contains(state->ages, thread);
    return known <= 0 ? known : PyDict_DelItem(state->ages, thread);
}

/* Note that `context` is what the thread's present work was handed off in. Set `thread` to the key,
 * and `body` to what was there before, or NULL. */
static int begin_body(State *state, PyObject *context, PyObject **thread, PyObject **body) {
    *thread = get_thread(state);
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

/* --- the work item of a thread pool --------------------------------------------------------------------- */

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

/* Do what a work item does when it is made: capture the context into its future. `work` is the function, or
 * from 3.14 on a task, of which that is the first part. */
static void carry(State *state, PyObject *seam, PyObject *future, PyObject *work, PyObject **interrupt) {
    PyObject *context, *function, *capture;
    int status = -1;
    function = FROM_3_14 ? PySequence_GetItem(work, 0) : Py_NewRef(work);
    capture = function == NULL ? NULL : read_slot(seam, state->slots.capture);
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
            status = PyObject_SetAttr(future, state->names._result, context);
        }
    }
    if (status < 0) {
        report(state, "submit", interrupt);
    }
    Py_XDECREF(capture);
    Py_XDECREF(context);
    Py_XDECREF(function);
}

/* __init__(self, future, work, ...) of a work item */
static PyObject *begin_item(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *nothing = PyObject_Vectorcall(PART(self, PLAIN), args, count, NULL), *interrupt = NULL;
    if (nothing != NULL) {
        carry(state, PART(self, SEAM), args[1], args[2], &interrupt);
    }
    return outcome(nothing, NULL, interrupt);
}

/* run(self) of a work item, with the worker's context from 3.14 on */
static PyObject *run_item(State *state, Method *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *record, *result = NULL, *interrupt = NULL;
    Turn turn = {NULL, NULL, NULL, NULL};
    if (get_adopted(state, &record) < 0 || pick_up(state, args[0], &turn) < 0) {
        report(state, "attach", &interrupt);
    }
    if (interrupt == NULL) {
        result = PyObject_Vectorcall(PART(self, PLAIN), args, count, NULL);
    }
    return end_turn(state, record, &turn, result, interrupt);
}

/* --- a call that carries a context ---------------------------------------------------------------------- */

/* An instance of DirectCall, a subclass of handoff.py's Call. */
typedef struct {
    PyObject_HEAD
    PyObject *context, *function; /* the slots of Call */
    vectorcallfunc vectorcall;
    Py_ssize_t running; /* how many calls of it have not returned yet */
} DirectCall;

/* Attach `context`, unless it is current, or both are empty. Where what is current then is what the
 * flow has in its `record`, the call does not see that: the flow lets go of it when the call is over. */
static int begin_call(State *state, PyObject *context, PyObject *record, Turn *turn) {
    PyObject *adopted = NULL, *current;
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
    current = turn->token == NULL ? turn->before : context;
    status = 0;
    if (record != NULL && PyList_CheckExact(record) && PyWeakref_Check(PyList_GET_ITEM(record, 0))) {
        status = PyWeakref_GetRef(PyList_GET_ITEM(record, 0), &adopted);
    }
    status = status > 0 && adopted == current ? set_adopted(state, Py_None) : status;
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
