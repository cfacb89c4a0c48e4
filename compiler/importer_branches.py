"""Replaces an If whose condition is known by the branch that runs."""

from collections.abc import Mapping

import onnx
from onnx import helper, numpy_helper

from gateformer.compiler.importer_node import Node


def branch(node: Node, condition: bool) -> list[onnx.NodeProto]:
    """The nodes of the branch that runs, with names of their own, and what gives the If's outputs
    their values."""
    graph = node.attributes["then_branch" if condition else "else_branch"]
    renamed = {name: f"{node.name}/{name}" for inner in graph.node for name in inner.output if name}
    renamed |= {tensor.name: f"{node.name}/{tensor.name}" for tensor in graph.initializer}
    nodes = []
    for tensor in graph.initializer:
        value = numpy_helper.from_array(numpy_helper.to_array(tensor))
        nodes.append(helper.make_node("Constant", [], [renamed[tensor.name]], value=value))
    for inner in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{node.name}/{inner.name}" if inner.name else ""
        rename(copy, renamed)
        nodes.append(copy)
    for value, output in zip(graph.output, node.outputs, strict=True):
        source = renamed.get(value.name, value.name)
        nodes.append(helper.make_node("Identity", [source], [output]))
    return nodes


def rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Renames what a node and its subgraphs read and compute."""
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            field[index] = names.get(name, name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                rename(inner, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)
