//! The kernels on tensors of burn's CubeCL backend.

use burn::backend::Cube;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::Client;
use cubecl::prelude::*;

use super::attend::attend_part;
use super::fused::FusedDecode;
use super::join::join_parts;
use super::plan::{Plan, Way, element};
use super::step::StepLaunch;
use super::tensor::attend_part_tensor;

/// Units of a cube that joins parts.
const JOIN_UNITS: u32 = 64;

/// Most numbers that each of them joins.
const JOIN_VECTOR: usize = 4;

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
        let output = empty(&[problem.batch, problem.heads, problem.new, problem.value_width]);
        if plan.is_whole() {
            let unwritten = empty(&[2]);
            attend(&client, &plan, q, keys, values, &output, &unwritten);
            return output;
        }
        let sums = empty(&[heads, rows, *splits, problem.value_width]);
        let statistics = empty(&[heads, rows, *splits, 2]);
        attend(&client, &plan, q, keys, values, &sums, &statistics);
        // The width of vectors that the sums were written in, or the widest that this kernel reads.
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
    // SAFETY: the buffer was made from `lengths`, so it has `lengths.len()` numbers.
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
                client,
                cubes,
                cube,
                q,
                keys,
                values,
                lengths,
                sums,
                statistics,
                step,
                *tile,
                plan.is_whole(),
                format,
            ),
        }
    }
}
