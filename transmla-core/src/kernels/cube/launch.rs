//! The kernels on tensors of burn's CubeCL backend.

use burn::backend::{Cube, DispatchDevice};
use burn::tensor::{DType, Device, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::Client;
use cubecl::features::{MmaConfig, TypeUsage};
use cubecl::ir::{DeviceProperties, ElemType, FloatKind};
use cubecl::prelude::*;

use super::FusedDecode;
use super::attend::attend_part;
use super::join::join_parts;
use super::problem::Problem;
use super::step::StepLaunch;
use super::tensor::{TensorTile, VECTOR, attend_part_tensor};
use super::tile::{Limits, Tile};

/// Units of a cube that joins parts.
const JOIN_UNITS: u32 = 64;

/// Most numbers that each of them joins.
const JOIN_VECTOR: usize = 4;

/// How one cube goes about its part.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Products of vectors, in `f32`.
    Vectors(Tile),
    /// Matrix instructions, on numbers in the format of the cache.
    Tensors(TensorTile),
}

/// A problem, and how a device goes about it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    problem: Problem,
    way: Way,
    /// Numbers that are read at once.
    vector: usize,
    /// Parts of the tokens of a sequence.
    splits: usize,
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

    /// Strides of the first three dimensions in vectors.
    fn strides(&self, tensor: &CubeTensor) -> [usize; 3] {
        [0, 1, 2].map(|dim| tensor.meta.strides()[dim] / self.vector)
    }

    /// A tensor whose rows can be read in vectors: the given one if it is one.
    fn with_rows(&self, tensor: CubeTensor) -> CubeTensor {
        let strides = tensor.meta.strides();
        match strides[3] == 1 && strides[..3].iter().all(|stride| stride.is_multiple_of(self.vector)) {
            true => tensor,
            false => into_contiguous(tensor),
        }
    }
}

impl FusedDecode for Cube {
    fn fused_decode(q: CubeTensor, keys: CubeTensor, values: CubeTensor, plan: Plan) -> CubeTensor {
        let q = into_contiguous(q);
        let keys = plan.with_rows(keys);
        let values = match plan.problem.in_keys {
            true => keys.clone(),
            false => plan.with_rows(values),
        };
        let Plan { problem, splits, .. } = &plan;
        let client = keys.client.clone();
        let empty = |dims: &[usize]| {
            empty_device_contiguous_dtype(
                client.clone(),
                keys.device.clone(),
                Shape::from(dims.to_vec()),
                DType::F32,
            )
        };
        let (heads, rows) = (problem.batch * problem.groups, problem.rows());
        let sums = empty(&[heads, rows, *splits, problem.value_width]);
        let statistics = empty(&[heads, rows, *splits, 2]);
        let output = empty(&[problem.batch, problem.heads, problem.new, problem.value_width]);
        attend(&client, &plan, q, keys, values, &sums, &statistics);
        // What the sums were written in, if not more than the values' width is made of.
        let vector = plan.vector.min(JOIN_VECTOR);
        let value_width = problem.value_width / vector;
        let vectors = heads * rows * value_width;
        let cube = CubeDim::new_1d(JOIN_UNITS);
        // SAFETY: the parts are `[rows, splits, ..]` of the rows that the output has, and no unit goes behind its vectors.
        unsafe {
            join_parts::launch_unchecked(
                &client,
                calculate_cube_count_elemwise(&client, vectors, cube),
                cube,
                vector,
                sums.into_buffer_arg(),
                statistics.into_buffer_arg(),
                output.clone().into_buffer_arg(),
                *splits,
                vectors,
                value_width,
            );
        }
        output
    }
}

fn attend(
    client: &Client,
    plan: &Plan,
    q: CubeTensor,
    keys: CubeTensor,
    values: CubeTensor,
    sums: &CubeTensor,
    statistics: &CubeTensor,
) {
    let Plan { problem, way, .. } = plan;
    let lengths: Vec<u32> = problem.lengths.iter().map(|length| *length as u32).collect();
    let [key_strides, value_strides] = [&keys, &values].map(|tensor| plan.strides(tensor));
    let [key_batch, key_group, key_token] = key_strides;
    let [value_batch, value_group, value_token] = value_strides;
    let step = StepLaunch::new(
        problem.rows(),
        problem.new,
        problem.groups,
        plan.splits,
        problem
            .parameters
            .window
            .unwrap_or(u32::MAX as usize)
            .min(u32::MAX as usize),
        key_batch,
        key_group,
        key_token,
        value_batch,
        value_group,
        value_token,
        problem.parameters.scale as f32,
        problem.parameters.softcap.unwrap_or(1.0) as f32,
    );
    let (rows, units) = match way {
        Way::Vectors(tile) => (tile.rows, tile.units),
        Way::Tensors(tile) => (tile.rows(), tile.units()),
    };
    let cubes = CubeCount::Static(
        plan.splits as u32,
        problem.rows().div_ceil(rows) as u32,
        (problem.batch * problem.groups) as u32,
    );
    let cube = CubeDim::new_1d(units as u32);
    let (q, keys, values) = (q.into_buffer_arg(), keys.into_buffer_arg(), values.into_buffer_arg());
    let (sums, statistics) = (sums.clone().into_buffer_arg(), statistics.clone().into_buffer_arg());
    // SAFETY: there are as many as is said.
    let lengths =
        unsafe { BufferArg::from_raw_parts(client.create_from_slice(u32::as_bytes(&lengths)), lengths.len()) };
    let format = element(problem.dtype);
    // SAFETY: `Problem` has checked that the shapes fit each other, that no length is beyond the rows and that 32 bits index
    // every row; the kernels read rows below their sequence's length alone, and write rows that there are. Matrix instructions are
    // used where the device has them.
    unsafe {
        match way {
            Way::Vectors(tile) => attend_part::launch_unchecked(
                client,
                cubes,
                cube,
                plan.vector,
                q,
                keys,
                values,
                lengths,
                sums,
                statistics,
                step,
                *tile,
                format,
            ),
            Way::Tensors(tile) => attend_part_tensor::launch_unchecked(
                client, cubes, cube, q, keys, values, lengths, sums, statistics, step, *tile, format,
            ),
        }
    }
}

/// The element of a float format that [`Problem`] lets through.
fn element(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}
