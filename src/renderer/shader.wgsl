// A frame: the picture, scaled to the output, with the cursor over it. All in whole numbers, so
// that every adapter and the software canvas give the same. A texel is a pixel's four bytes, the
// first one lowest.
//
// Where texels are is in texture.wgsl or buffer.wgsl, either of which follows this.
//
// Nothing branches on a parameter: drivers that fold parameters into the shader would compile it
// anew for each frame. What differs between frames at large is fixed for each pipeline.

struct Params {
    source: vec4<u32>,       // of the picture: x, y, width, height
    scale: vec2<i32>,        // source / output, 16.16
    opaque: u32,             // 255: the cursor has no alpha
    row: u32,                // pixels of the picture's
    cursor: vec4<i32>,       // x, y in the source's pixels, width, height
    shift: vec4<u32>,        // where in a texel red, green and blue are
    cursor_shift: vec4<u32>, // and alpha
}

override scaled: bool;
override with_cursor: bool;

@group(0) @binding(0) var<uniform> params: Params;

// One triangle that covers the output.
@vertex
fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    let x = f32(i32(index & 1u) * 4 - 1);
    let y = f32(i32(index & 2u) * 2 - 1);
    return vec4<f32>(x, y, 0.0, 1.0);
}

// Where an output pixel's middle is in the source, 16.16, from the middle of the source's first.
fn place(at: vec2<i32>) -> vec2<i32> {
    return params.scale * at + ((params.scale + vec2<i32>(1)) >> vec2<u32>(1u)) - vec2<i32>(0x8000);
}

// With 7 bits of weight.
fn blend(tl: vec4<u32>, tr: vec4<u32>, bl: vec4<u32>, br: vec4<u32>, at: vec2<i32>) -> vec4<u32> {
    let weight = vec2<u32>((at >> vec2<u32>(9u)) & vec2<i32>(0x7f)) * 2u;
    let both = weight.x * weight.y;
    let right = weight.x * 256u - both;
    let below = weight.y * 256u - both;
    let none = 65536u - weight.x * 256u - weight.y * 256u + both;
    return (tl * none + tr * right + bl * below + br * both) >> vec4<u32>(16u);
}

// Pixels beside the picture are like those at its edge. Its alpha does not count.
fn picture_pixel(at: vec2<i32>) -> vec4<u32> {
    let last = vec2<i32>(params.source.zw) - vec2<i32>(1);
    let inside = clamp(at, vec2<i32>(0), last) + vec2<i32>(params.source.xy);
    return (vec4<u32>(picture_texel(inside)) >> params.shift) & vec4<u32>(0xffu);
}

// Pixels beside the cursor are transparent.
fn cursor_pixel(at: vec2<i32>) -> vec4<u32> {
    let inside = clamp(at, vec2<i32>(0), params.cursor.zw - vec2<i32>(1));
    let texel = cursor_texel(inside);
    let pixel = ((vec4<u32>(texel) >> params.cursor_shift) & vec4<u32>(0xffu)) |
                vec4<u32>(0u, 0u, 0u, params.opaque);
    return select(vec4<u32>(0u), pixel, all(at == inside));
}

// d * a / 255, rounded.
fn multiply(d: vec4<u32>, a: u32) -> vec4<u32> {
    let t = d * a + vec4<u32>(0x80u);
    return (t + (t >> vec4<u32>(8u))) >> vec4<u32>(8u);
}

@fragment
fn compose(@builtin(position) position: vec4<f32>) -> @location(0) u32 {
    let output = vec2<i32>(position.xy);
    let at = place(output);
    let one = vec2<i32>(1, 0);
    let down = vec2<i32>(0, 1);
    var pixel: vec4<u32>;
    if scaled {
        let first = at >> vec2<u32>(16u);
        pixel = blend(picture_pixel(first), picture_pixel(first + one),
                      picture_pixel(first + down), picture_pixel(first + one + down), at);
    } else {
        pixel = picture_pixel(output);
    }
    if with_cursor {
        var over: vec4<u32>;
        if scaled {
            let there = at - params.cursor.xy * 65536;
            let first = there >> vec2<u32>(16u);
            over = blend(cursor_pixel(first), cursor_pixel(first + one),
                         cursor_pixel(first + down), cursor_pixel(first + one + down), there);
        } else {
            over = cursor_pixel(output - params.cursor.xy);
        }
        pixel = min(over + multiply(pixel, 255u - over.w), vec4<u32>(255u));
    }
    return pixel.z | (pixel.y << 8u) | (pixel.x << 16u) | 0xff000000u;
}
