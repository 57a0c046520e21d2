"""What all kernels share: compiler, dispatch, memory layout, the neuron in C++."""
