/* What older versions of CPython lack. */
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define FROM_3_14 (PY_VERSION_HEX >= 0x030E0000)

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

static int PyDict_Pop(PyObject *dict, PyObject *key, PyObject **value) {
    int status = PyDict_GetItemRef(dict, key, value);
    return status > 0 && PyDict_DelItem(dict, key) < 0 ? -1 : status;
}
#endif
