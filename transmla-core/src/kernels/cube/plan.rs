//! A problem, and how a device goes about it.

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::features::{MmaConfig, TypeUsage};
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};

use super::problem::Problem;
use super::tensor::{TensorTile, VECTOR};
use super::tile::{Limits, Tile};

/// How one cube goes about its part.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// Products of vectors, in `f32`.
    Vectors(Tile),
    /// Matrix instructions, on numbers in the format of the cache.
    Tensors(TensorTile),
}

/// A problem, and how a device goes about it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) problem: Problem,
    pub(super) way: Way,
    /// Numbers that are read at once.
    pub(super) vector: usize,
    /// Parts of the tokens of a sequence.
    pub(super) splits: usize,
}

impl Plan {
    /// Nothing if the device does not know the cache's format or has no room for one row.
    pub(super) fn new(device: &Device, problem: Problem) -> Option<Self> {
        let DispatchDevice::Cube(device) = device.as_dispatch() else {
            return None;
        };
        let client = device.client();
        let properties = client.properties();
        let usage = properties.type_usage(element(problem.dtype));
        if !usage.is_superset(TypeUsage::Buffer | TypeUsage::Conversion) {
            return None;
        }
        match Self::of_tensors(properties, &problem) {
            Some(plan) => Some(plan),
            None => Self::of_vectors(properties, problem),
        }
    }

    fn of_vectors(properties: &DeviceProperties, problem: Problem) -> Option<Self> {
        let hardware = &properties.hardware;
        let limits = Limits {
            shared: hardware.max_shared_memory_size,
            units: hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize,
            processors: hardware.num_streaming_multiprocessors.map(|count| count as usize),
        };
        let vector = [4, 2, 1].into_iter().find(|vector| {
            *vector <= hardware.max_vector_size
                && problem.width.is_multiple_of(*vector)
                && problem.value_width.is_multiple_of(*vector)
        })?;
        let widths = [problem.width / vector, problem.value_width / vector];
        let flags = [problem.in_keys, problem.parameters.softcap.is_some()];
        let tile = Tile::new(problem.rows(), widths, vector, problem.dtype.size(), flags, limits)?;
        let cubes = problem.batch * problem.groups * problem.rows().div_ceil(tile.rows);
        Some(Self {
            splits: tile.splits(cubes, problem.longest_span(), limits),
            problem,
            way: Way::Vectors(tile),
            vector,
        })
    }

    /// Nothing where there are no matrix instructions for the cache's format, or the widths are no whole matrices.
    fn of_tensors(properties: &DeviceProperties, problem: &Problem) -> Option<Self> {
        let hardware = &properties.hardware;
        let format = element(problem.dtype);
        let product = MmaConfig {
            a_type: format,
            b_type: format,
            cd_type: ElemType::Float(FloatKind::F32),
            m: 16,
            n: 8,
            k: 16,
        };
        let matmul = &properties.features.matmul;
        let planes_of_32 = [hardware.plane_size_min, hardware.plane_size_max] == [32, 32];
        if !(planes_of_32 && matmul.mma.contains(&product) && matmul.ldmatrix.contains(&format)) {
            return None;
        }
        let flags = [problem.in_keys, problem.parameters.softcap.is_some()];
        let shared = hardware.max_shared_memory_size;
        let tile = TensorTile::new(problem.rows(), [problem.width, problem.value_width], flags, shared)?;
        let cubes = problem.batch * problem.groups * problem.rows().div_ceil(tile.rows());
        let processors = hardware.num_streaming_multiprocessors.unwrap_or(1) as usize;
        let places = processors * tile.cubes_of_processor(shared);
        Some(Self {
            splits: tile.splits(cubes, problem.longest_span(), places),
            problem: problem.clone(),
            way: Way::Tensors(tile),
            vector: VECTOR,
        })
    }

    /// Whether the first kernel gives the result, with nothing to be joined.
    pub(super) fn is_whole(&self) -> bool {
        self.splits == 1 && matches!(self.way, Way::Tensors(_))
    }

    /// Strides of the first three dimensions in vectors.
    pub(super) fn strides(&self, tensor: &CubeTensor) -> [usize; 3] {
        [0, 1, 2].map(|dim| tensor.meta.strides()[dim] / self.vector)
    }

    /// A tensor whose rows can be read in vectors: the given one if it is one.
    pub(super) fn with_rows(&self, tensor: CubeTensor) -> CubeTensor {
        let strides = tensor.meta.strides();
        match strides[3] == 1 && strides[..3].iter().all(|stride| stride.is_multiple_of(self.vector)) {
            true => tensor,
            false => into_contiguous(tensor),
        }
    }
}

/// The element of a float format that `Problem` lets through.
pub(super) fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}
