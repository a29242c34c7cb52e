/* Slots of objects, read where they are: a tenth of the cost of a look-up by name. */
#pragma once
#include "older_versions.h"

/* Whether an object is an instance of a class: its own or the base of that, mostly. */
static int is_a(PyObject *object, PyTypeObject *class) {
    PyTypeObject *own = Py_TYPE(object);
    return own == class || own->tp_base == class || PyType_IsSubtype(own, class);
}

/* Read a slot of an object, whose class has `descriptor` for it. */
static PyObject *read_slot(PyObject *object, PyObject *descriptor) {
    PyMemberDef *member;
    PyObject *value = NULL;
    if (descriptor == NULL || !Py_IS_TYPE(descriptor, &PyMemberDescr_Type) ||
        !is_a(object, PyDescr_TYPE(descriptor))) {
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

static int is_true(PyObject *object, PyObject *descriptor) {
    PyObject *value = read_slot(object, descriptor);
    int status = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return status;
}
