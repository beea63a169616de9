// What counting adds to the build file of an app's module; not a whole build file.

android {
    defaultConfig {
        // What MediaPipe's setup guide asks for. ImageDecoder needs it too.
        minSdk = 28
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
    }
    androidResources {
        noCompress += "tflite"
    }
}

dependencies {
    implementation("com.google.mediapipe:tasks-vision:1.0.0")
    androidTestImplementation("androidx.test:runner:1.7.0")
    androidTestImplementation("androidx.test.ext:junit:1.3.0")
}
