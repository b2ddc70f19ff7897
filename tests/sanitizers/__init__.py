"""Programs in C that call the kernels with random, all small and huge shapes: `make sanitize-shapes`."""
