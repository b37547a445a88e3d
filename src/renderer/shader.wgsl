// A frame: the picture, scaled to the output, with the cursor over it. All in whole numbers, so
// that every adapter and the software canvas give the same.

struct Params {
    source: vec4<u32>,         // of the picture: x, y, width, height
    scale: vec2<i32>,          // source / output, 16.16
    scaled: u32,               // whether they differ
    cursor_on: u32,
    cursor: vec4<i32>,         // x, y in the source's pixels, width, height
    swizzle: vec4<u32>,        // which bytes of a pixel are red, green and blue
    cursor_swizzle: vec4<u32>, // and alpha; 4: there is none
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var picture: texture_2d<u32>;
@group(0) @binding(2) var cursor: texture_2d<u32>;

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

// Pixels beside the picture are like those at its edge.
fn picture_pixel(at: vec2<i32>) -> vec4<u32> {
    let last = vec2<i32>(params.source.zw) - vec2<i32>(1);
    let inside = clamp(at, vec2<i32>(0), last) + vec2<i32>(params.source.xy);
    let raw = textureLoad(picture, inside, 0);
    return vec4<u32>(raw[params.swizzle.x], raw[params.swizzle.y], raw[params.swizzle.z], 255u);
}

// Pixels beside the cursor are transparent.
fn cursor_pixel(at: vec2<i32>) -> vec4<u32> {
    if any(at < vec2<i32>(0)) || any(at >= params.cursor.zw) {
        return vec4<u32>(0u);
    }
    let raw = textureLoad(cursor, at, 0);
    let order = params.cursor_swizzle;
    var alpha = 255u;
    if order.w < 4u {
        alpha = raw[order.w];
    }
    return vec4<u32>(raw[order.x], raw[order.y], raw[order.z], alpha);
}

// d * a / 255, rounded.
fn multiply(d: vec4<u32>, a: u32) -> vec4<u32> {
    let t = d * a + vec4<u32>(0x80u);
    return (t + (t >> vec4<u32>(8u))) >> vec4<u32>(8u);
}

@fragment
fn compose(@builtin(position) position: vec4<f32>) -> @location(0) vec4<u32> {
    let output = vec2<i32>(position.xy);
    let at = place(output);
    let one = vec2<i32>(1, 0);
    let down = vec2<i32>(0, 1);
    var pixel: vec4<u32>;
    if params.scaled == 0u {
        pixel = picture_pixel(output);
    } else {
        let first = at >> vec2<u32>(16u);
        pixel = blend(picture_pixel(first), picture_pixel(first + one),
                      picture_pixel(first + down), picture_pixel(first + one + down), at);
    }
    if params.cursor_on != 0u {
        var over: vec4<u32>;
        if params.scaled == 0u {
            over = cursor_pixel(output - params.cursor.xy);
        } else {
            let there = at - params.cursor.xy * 65536;
            let first = there >> vec2<u32>(16u);
            over = blend(cursor_pixel(first), cursor_pixel(first + one),
                         cursor_pixel(first + down), cursor_pixel(first + one + down), there);
        }
        pixel = min(over + multiply(pixel, 255u - over.w), vec4<u32>(255u));
    }
    return vec4<u32>(pixel.z, pixel.y, pixel.x, 255u);
}
