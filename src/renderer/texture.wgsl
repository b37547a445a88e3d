
// Pictures as textures.

@group(0) @binding(1) var picture: texture_2d<u32>;
@group(0) @binding(2) var cursor: texture_2d<u32>;

fn picture_texel(at: vec2<i32>) -> u32 {
    return textureLoad(picture, at, 0).x;
}

fn cursor_texel(at: vec2<i32>) -> u32 {
    return textureLoad(cursor, at, 0).x;
}
