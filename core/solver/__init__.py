"""Pure functions of tensors: grids, Hessians, factors, the GPTQ column solve. No files, no modules, no model."""
