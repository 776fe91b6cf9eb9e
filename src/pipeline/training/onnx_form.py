"""A canonical form of ONNX models, since the exporter's names depend on what it exported before."""

from collections import Counter
from collections.abc import Iterator

import onnx


def put_in_one_form(model: onnx.ModelProto, input_name: str, output_name: str) -> None:
    """Sort and rename the nodes of `model` (one input, one output), by the order in which they are used."""
    graph = model.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    names = {"": "", graph.input[0].name: input_name, graph.output[0].name: output_name}
    _put_in_form(graph, names, Counter())
    graph.name = "classifier"
    versions = sorted(model.opset_import, key=lambda found: found.domain)
    del model.opset_import[:]
    model.opset_import.extend(versions)


def _put_in_form(graph: onnx.GraphProto, names: dict[str, str], counts: Counter[str]) -> None:
    """Sort and rename the contents of `graph`.

    Args:
        graph: the graph of the model, or one inside a node.
        names: {old name: new name}, including those of the enclosing graphs; extended in place.
        counts: how many names of each kind have been given.
    """

    def name(old: str, kind: str) -> str:
        if old not in names:
            counts[kind] += 1
            names[old] = f"{kind}_{counts[kind]}"
        return names[old]

    weights = {tensor.name: tensor for tensor in graph.initializer}
    formed = onnx.GraphProto()
    for value in graph.input:
        name(value.name, "input")
    for index in _order(graph):
        node = graph.node[index]
        for value_name in _reads(node):
            if value_name in weights and value_name not in names:
                weight = formed.initializer.add()
                weight.CopyFrom(weights[value_name])
                weight.name = name(value_name, "weight")
        for value_name in node.output:
            name(value_name, node.op_type)
        for inner in _graphs(node):
            _put_in_form(inner, names, counts)
        node.input[:] = [names[old] for old in node.input]
        node.output[:] = [names[old] for old in node.output]
        node.name = node.output[0]
        formed.node.append(node)
    formed.input.extend(graph.input)
    formed.output.extend(graph.output)
    for value in (*formed.input, *formed.output):
        value.name = names[value.name]
    graph.CopyFrom(formed)


def _order(graph: onnx.GraphProto) -> list[int]:
    """Return the indices of all nodes that are used, in topological order, depth first."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output}
    order: dict[int, None] = {}
    for output in graph.output:
        stack = [makers[output.name]] if output.name in makers else []
        while stack:
            made_by = (makers[name] for name in _reads(graph.node[stack[-1]]) if name in makers)
            missing = next((index for index in made_by if index not in order), None)
            if missing is None:
                order[stack.pop()] = None
            else:
                stack.append(missing)
    return list(order)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, including those read by the graphs inside it."""
    yield from node.input
    for graph in _graphs(node):
        for inner in graph.node:
            yield from _reads(inner)
        yield from (value.name for value in graph.output)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs
