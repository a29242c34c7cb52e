/* _put and _get of the stock queues, and get of asyncio.Queue. */
#pragma once
#include "adoption.h"
#include "methods.h"

enum { CONTAINER = SEAM, PAIRS = MARK, FAULT = MORE, OWNER, PAIRS_LOANS, SETTLED, HAS_GIVEN, TO_PASS,
       UNKNOWN, REPEATED, CONTEXTS, HELD }; /* those from PAIRS_LOANS on are descriptors of slots */
enum { UNPAIRED = MARK };

/* `_put` and `_get` of the stock queues do what their twins do with a queue whose pairs are known by heart,
 * or that has none and needs none. That is found out before the queue is touched; all else is left to the
 * twin. The pairs of a queue in order are a deque: item, context, item, context, ... Those of a
 * PriorityQueue are two dictionaries: by the id of an item, its context, and the item itself. */
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

/* Call a method of deque, where `argument` may be NULL: its C function, since it is known that it is one of
 * a deque, and takes no other arguments. */
static PyObject *call_deque(PyObject *method, PyObject *deque, PyObject *argument) {
    PyObject *args[2] = {deque, argument};
    PyMethodDef *known = NULL;
    if (Py_IS_TYPE(method, &PyMethodDescr_Type)) {
        known = ((PyMethodDescrObject *)method)->d_method;
    }
    if (known != NULL && known->ml_flags == (argument == NULL ? METH_NOARGS : METH_O)) {
        return known->ml_meth(deque, argument);
    }
    return PyObject_Vectorcall(method, args, argument == NULL ? 1 : 2, NULL);
}

static int append(State *state, PyObject *deque, PyObject *object) {
    PyObject *nothing = call_deque(state->append, deque, object);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
}

/* Find out what a queue holds. Return whether its pairs are known by heart (1), or there is nothing to do
 * but what the plain method does (0). */
static int look_at(State *state, Method *self, PyObject *queue, enum Order order, int puts, Held *held) {
    PyObject *context;
    int status;
    held->container = PyObject_GetAttr(queue, PART(self, CONTAINER));
    held->pairs = NULL;
    if (held->container != NULL) {
        held->pairs = PyObject_GetAttr(queue, state->names._otel_concurrency_pairs);
    }
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

/* Call a method of the pairs with an item and a context, either of which may be NULL, and a size. The name is
 * one that is kept: older interpreters remember each string that was looked up, with its address. */
static PyObject *call_pairs(PyObject *pairs, PyObject *name, PyObject *item, PyObject *context,
                            Py_ssize_t size) {
    PyObject *args[4] = {pairs}, *number = PyLong_FromSsize_t(size), *result;
    size_t count = 1;
    if (number == NULL) {
        return NULL;
    }
    if (item != NULL) {
        args[count++] = item;
    }
    if (context != NULL) {
        args[count++] = context;
    }
    args[count++] = number;
    result = PyObject_VectorcallMethod(name, args, count, NULL);
    Py_DECREF(number);
    return result;
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
    nothing = call_pairs(held->pairs, state->names.forget, NULL, NULL, size);
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
static int note(State *state, Method *self, Held *held, PyObject *item, PyObject *context, Py_ssize_t size) {
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
        nothing = call_pairs(held->pairs, state->names.put, item, context, size);
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
            status = note(state, self, &held, args[1], context, size);
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
    PyObject *key = PyLong_FromVoidPtr(item), *held;
    int status = key == NULL ? -1 : PyDict_Pop(contexts, key, context);
    if (status > 0 && (PyObject *)Py_TYPE(*context) == state->deque) {
        status = PyDict_SetItem(contexts, key, *context); /* 0: it was put more than once */
    } else if (status > 0) {
        status = PyDict_Pop(items, key, &held) < 0 ? -1 : 1;
        Py_XDECREF(held);
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
        context = call_pairs(held->pairs, state->names.take, item, NULL, size);
    }
    return status < 0 ? NULL : hand_over(state, context);
}

/* Take an item out of the container itself. */
static PyObject *take_out(State *state, Method *self, PyObject *container, enum Order order) {
    PyObject *item;
    Py_ssize_t size;
    if (order == LAST && PyList_CheckExact(container) && (size = PyList_GET_SIZE(container)) > 0) {
        item = Py_NewRef(PyList_GET_ITEM(container, size - 1));
        if (PyList_SetSlice(container, size - 1, size, NULL) < 0) {
            Py_CLEAR(item);
        }
        return item;
    }
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
