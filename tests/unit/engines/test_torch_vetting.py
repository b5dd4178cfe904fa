"""Contents of a PyTorch program that are accepted; the accepted strings are those of PyTorch 2.13."""

import json

import pytest

from forebay_server.engines.pytorch.vetting import UnsafeModelError, vet_payloads, vet_program, vet_script

SPEC = '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.dict", "context": %s}]}]'


def program(**fields):
    """A program with one node; `fields` take the place of parts of it."""
    node = {
        "target": fields.get("target", "torch.ops.aten.add.Tensor"),
        "inputs": [{"name": fields.get("name", "self"), "arg": fields.get("argument", {"as_tensor": {"name": "x"}})}],
        "metadata": {"stack_trace": 'File "model.py", line 3\n    return (x + 1)'},
    }
    size = {"as_expr": {"expr_str": fields.get("size", "Symbol('s77', positive=True, integer=True)")}}
    return json.dumps(
        {
            "graph_module": {
                "graph": {"nodes": [node], "tensor_values": {fields.get("key", "p_layer_weight"): {"sizes": [size]}}},
                "module_call_graph": [{"fqn": "", "signature": {"in_spec": fields.get("spec", SPEC % '"[]"')}}],
            },
            "guards_code": [fields.get("guard", "L['x'].size()[0] <= 8")],
            "range_constraints": {"s77": {"min_val": 0, "max_val": None}},
            "torch_version": "2.13.0+cpu",
        }
    ).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"target": "torch.ops.aten.conv2d.default"},
        {"target": "torch.ops.aten._softmax.default"},
        {"target": "torch.ops.aten.__and__.Tensor"},
        {"target": "torch.ops.higher_order.cond"},
        {"target": "_operator.floordiv"},
        {"target": "torch.sym_max"},
        {"target": "math.trunc"},
        {"argument": {"as_operator": "torch.ops.aten.add.Tensor"}},
        {"argument": {"as_string": "bhqd,bhkd->bhqk (anything)"}},
        {"key": "parametrizations.layer-1.weight"},
        {"size": "Add(Mul(Integer(9), FloorDiv(Add(Symbol('s53', integer=True), Integer(-1)), Integer(2))), 1)"},
        {"size": "Max(Integer(1), Rational(1, 2), Float('0.5', precision=53))"},
        {"guard": "L['d']['a'].size()[0] == L['d']['b'].size()[0]"},
        {"guard": "Mod(L['x'].size()[1], 2) == 0 and not L['x'].stride()[0] > 3 or math.isnan(1)"},
        {"spec": SPEC % '"[\\"opt\\", \\"mask\\"]"'},
    ],
)
def test_what_exports_have_passes(fields):
    vet_program(program(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "torch.os.system"},
        {"target": "torch.hub.load"},
        {"target": "torch.ops.aten.from_file.default"},
        {"target": "torch.ops.aten.save.default"},
        {"target": "torch.ops.load_library"},
        {"target": "torch.ops.aten.__class__.x"},
        {"target": "torch.ops.aten.add.__class__"},
        {"target": "torch.ops.higher_order.aoti_call_delegate"},
        {"target": "torch.ops.mylib.op.default"},
        {"target": "_operator.methodcaller"},
        {"target": "#ext.op"},
        {"argument": {"as_operator": "torch.os.system"}},
        {"argument": {"as_graph": {"graph": {"nodes": [{"target": "torch.os.system"}]}}}},
        {"name": "x=1), __import__('os').system('id'), (y"},
        {"key": "x=__import__('os')"},
        {"size": "__import__('os').system('id')"},
        {"size": "Symbol('s77').__class__"},
        {"size": 'Add(\'__import__("os").system("id")\')'},
        {"size": "(lambda: 1)()"},
        {"size": "[x for x in (1,)]"},
        {"size": "getattr(Symbol('s'), 'x')"},
        {"size": "1" * 5000},
        {"size": "(" * 500 + ")" * 500},
        {"size": "a b"},
        {"guard": "__import__('os').system('id')"},
        {"guard": "L['x'].size.__globals__['os']"},
        {"guard": "L['x'].numpy().tofile('f')"},
        {"guard": "math.__loader__.load_module('os')"},
        {"guard": "(L['x'].size)(L)"},
        {"spec": SPEC % '"[\\"x=__import__(1)\\"]"'},
        {"spec": '[1, {"default_factory_module": "antigravity"}]'},
        {"spec": '[1, {"context": "{\\"__enum__\\": 1}"}]'},
        {"spec": "no JSON"},
        {"spec": "[" * 100_000},
    ],
)
def test_what_would_run_something_else_is_refused(fields):
    with pytest.raises(UnsafeModelError):
        vet_program(program(**fields))


@pytest.mark.parametrize("document", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_a_graph_that_is_no_json_is_refused(document):
    with pytest.raises(UnsafeModelError, match="its graph is not JSON"):
        vet_program(document)


def payloads(path):
    return json.dumps({"config": {"weight": {"path_name": path, "use_pickle": False}}}).encode()


def test_tables_name_tensors():
    vet_payloads(payloads("weight_0"))
    vet_payloads(payloads("tensor_12"))
    vet_payloads(b'{"config": {}}')


@pytest.mark.parametrize(
    "path", ["custom_obj_0", "opaque_obj_0", "opaque_obj_x/tensor_1", "../weights/weight_0", None, 3]
)
def test_tables_name_nothing_that_is_unpickled(path):
    with pytest.raises(UnsafeModelError, match="holds a pickled object"):
        vet_payloads(payloads(path))


@pytest.mark.parametrize("document", [b"", b"[]", b'{"config": []}', b'{"config": {"w": {}}}', b'{"config": {"w": 1}}'])
def test_a_table_that_cannot_be_read_is_refused(document):
    with pytest.raises(UnsafeModelError, match="table of weights"):
        vet_payloads(document)


@pytest.mark.parametrize(
    "source",
    [
        b"def forward(self, x: Tensor) -> Tensor:\n  return torch.add(torch.relu(x), self.saved)\n",
        b'    _0 = getattr(getattr(self.layers, "0"), "a-b")\n    _1 = (getattr(self, "1")).forward(_0, )\n',
        b'      ops.prim.RaiseException("a\\n\\\'b\\" c", "builtins.RuntimeError")\n',
        "s = 'Größe'".encode(),
    ],
)
def test_torchscript_that_computes_passes(source):
    vet_script([source])


PATH = b'("/etc/passwd", False, 10)'


@pytest.mark.parametrize(
    "call",
    [
        b"torch.from_file" + PATH,
        b"ops.aten.save (x, 'f')",
        b"ops.debugprims.load_tensor('f')",
        b"(torch.from_file # a comment\n" + PATH + b")",
        b"torch.from_file \\\n" + PATH,
        b"f" + PATH + b"\n  f = torch.from_file",
        b'getattr(torch, "from_file")' + PATH,
        b"getattr(torch, 'from_file')" + PATH,
    ],
)
def test_torchscript_that_opens_files_is_refused(call):
    with pytest.raises(UnsafeModelError, match="open files by name"):
        vet_script([b"def f(x): return x\n", b"def forward(self, x):\n  return " + call])


@pytest.mark.parametrize(
    "call",
    [
        b'getattr(torch, "from_" "file")',
        b'getattr(torch, "from\\137file")',
        b"getattr(torch, 'from_' 'file')",
        b'getattr(torch, "x" # "y")\n "z")',
        b'getattr(getattr(torch, "x"), "from_" "file")',
        b"g = getattr",
        b"getattr(" * 70 + b"x" + b', "0")' * 70,
    ],
)
def test_torchscript_that_hides_a_name_is_refused(call):
    with pytest.raises(UnsafeModelError, match="looks up a name by getattr"):
        vet_script([b'  _0 = getattr(self, "0")\n  return ' + call])
